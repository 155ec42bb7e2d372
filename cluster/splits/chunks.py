"""Scores and reasons of encoded rows, always in chunks of one size.

A matrix product may differ in its last bits with the number of rows; a chunk of fixed size,
padded, makes a row's score independent of how rows were batched.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.columns import Roles
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.explaining.explainer import Explainer
from models.explaining.pictures import Picture, draw_largest_share
from models.explaining.reasons import REASONS


def _padded(tensor: Tensor, rows: int) -> Tensor:
    if len(tensor) == rows:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((rows - len(tensor), *tensor.shape[1:]))])


def encoded(
    encoder: Encoder, extracted: RawBatch, device: torch.device
) -> Iterator[tuple[RawBatch, Batch]]:
    """(real rows, encoded batch of `chunk_rows` rows) pairs, one at a time: each is scored while
    it is in the cache."""
    size = encoder.layout.chunk_rows
    for start in range(0, extracted.rows, size):
        chunk = extracted.take(slice(start, start + size))
        yield chunk, encoder(chunk.map(lambda tensor: _padded(tensor, size)).to(device))


@torch.inference_mode()
def scores(
    encoder: Encoder,
    detectors: Mapping[str, Detector],
    extracted: RawBatch,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Score of every row by every detector: float32 [rows] each."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in detectors}
    for chunk, batch in encoded(encoder, extracted, device):
        for name, detector in detectors.items():
            parts[name].append(detector.score(batch)[: chunk.rows].float().cpu().numpy())
    return {
        name: np.concatenate(part) if part else np.empty(0, np.float32)
        for name, part in parts.items()
    }


class Explained(NamedTuple):
    """Why rows have their scores."""

    reasons: pa.Array  # `REASONS` [rows]
    pictures: list[Picture | None]  # [rows]


def explain(
    encoder: Encoder,
    detector: Detector,
    extracted: RawBatch,
    roles: Roles,
    top: int,
    pictured: Collection[int],
    device: torch.device,
) -> Explained:
    """The `top` reasons of each row, and a picture of those at the places `pictured`, where a
    signal of theirs may be shown."""
    reasons = [pa.array([], REASONS)]
    pictures: list[Picture | None] = []
    explainer = Explainer(encoder)
    for chunk, batch in encoded(encoder, extracted, device):
        told = detector.contributions(batch)
        real = slice(chunk.rows)
        told = Contributions(
            told.shares[real],
            told.expected.take(real),
            tuple(each[real] for each in told.maps),
        )
        reasons.append(explainer.explain(chunk, told, top, roles.sensitive))
        first = len(pictures)
        pictures += [None] * chunk.rows
        if encoder.layout.signals and roles.pictured:
            for row in range(chunk.rows):
                if first + row in pictured:
                    pictures[first + row] = draw_largest_share(
                        encoder.layout, batch, told, row, roles.pictured
                    )
    return Explained(pa.concat_arrays(reasons), pictures)
