"""Scores and reasons of encoded rows, always in chunks of one size.

A matrix product may differ in its last bits with the number of rows; a chunk of fixed size,
padded, makes a row's score independent of how rows were batched.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.columns import Roles
from models.detector import Batch, Contributions, Detector
from models.encoder import Encoder, Extracted

# Rows a chunk: 4,096 fit the cache of a CPU; 8,192 was about 10% slower and 65,536 lost 30% to
# page faults.
CHUNK = 4096


def _padded(tensor: Tensor, start: int, device: torch.device) -> Tensor:
    chunk = tensor[start : start + CHUNK]
    if len(chunk) < CHUNK:
        fill = chunk.new_zeros((CHUNK - len(chunk), *chunk.shape[1:]))
        chunk = torch.cat([chunk, fill])
    return chunk.to(device)


def encoded(
    encoder: Encoder, extracted: Extracted, device: torch.device
) -> Iterator[tuple[int, Batch]]:
    """(real rows, encoded batch of `CHUNK` rows) pairs, one at a time: each is scored while it is
    in the cache."""
    rows = len(extracted.values)
    for start in range(0, rows, CHUNK):
        values = _padded(extracted.values, start, device)
        codes = _padded(extracted.codes, start, device)
        yield min(CHUNK, rows - start), encoder(values, codes)


@torch.inference_mode()
def scores(
    encoder: Encoder,
    detectors: Mapping[str, Detector],
    extracted: Extracted,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Score of every row by every detector: float32 [rows] each."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in detectors}
    for rows, batch in encoded(encoder, extracted, device):
        for name, detector in detectors.items():
            parts[name].append(detector.score(batch)[:rows].float().cpu().numpy())
    return {
        name: np.concatenate(part) if part else np.empty(0, np.float32)
        for name, part in parts.items()
    }


def reasons(
    encoder: Encoder,
    detector: Detector,
    extracted: Extracted,
    roles: Roles,
    top: int,
    device: torch.device,
) -> pa.Array:
    """The top reasons of each row: list of struct (feature, contribution, observed, expected)."""
    shares: list[Tensor] = []
    numeric: list[Tensor] = []
    codes: list[Tensor] = []
    for rows, batch in encoded(encoder, extracted, device):
        told = detector.contributions(batch)
        shares.append(told.shares[:rows].detach().cpu())
        numeric.append(told.expected.numeric[:rows].detach().cpu())
        codes.append(told.expected.codes[:rows].detach().cpu())
    told = Contributions(torch.cat(shares), Batch(torch.cat(numeric), torch.cat(codes)))
    return encoder.reasons(extracted, told, top, roles.sensitive)
