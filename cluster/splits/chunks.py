"""Score and explain encoded rows, always in chunks of one size.

The last bits of a matrix product may depend on its number of rows. Chunks have one size, the last
is padded, so a row's score does not depend on how rows were batched.
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


def _pad(tensor: Tensor, rows: int) -> Tensor:
    if len(tensor) == rows:
        return tensor
    return torch.cat([tensor, tensor.new_zeros((rows - len(tensor), *tensor.shape[1:]))])


def encode_chunks(
    encoder: Encoder, extracted: RawBatch, device: torch.device
) -> Iterator[tuple[RawBatch, Batch]]:
    """Yield (real rows, encoded batch of `chunk_rows` rows) pairs, one at a time, so that each is
    scored while it is in the cache."""
    size = encoder.layout.chunk_rows
    for start in range(0, extracted.rows, size):
        chunk = extracted.take(slice(start, start + size))
        yield chunk, encoder(chunk.map(lambda tensor: _pad(tensor, size)).to(device))


@torch.inference_mode()
def score_rows(
    encoder: Encoder,
    detectors: Mapping[str, Detector],
    extracted: RawBatch,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Score of every row by every detector: float32 [rows] each."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in detectors}
    for chunk, batch in encode_chunks(encoder, extracted, device):
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


def explain_rows(
    encoder: Encoder,
    detector: Detector,
    extracted: RawBatch,
    roles: Roles,
    top: int,
    pictured: Collection[int],
    device: torch.device,
) -> Explained:
    """The `top` reasons of each row, and pictures of the rows at the places `pictured`, as far as
    they have a signal that may be shown."""
    reasons = [pa.array([], REASONS)]
    pictures: list[Picture | None] = []
    explainer = Explainer(encoder)
    for chunk, batch in encode_chunks(encoder, extracted, device):
        padded = detector.contributions(batch)
        real = slice(chunk.rows)
        contributions = Contributions(
            padded.shares[real],
            padded.expected.take(real),
            tuple(each[real] for each in padded.maps),
        )
        reasons.append(explainer.explain(chunk, contributions, top, roles.sensitive))
        first = len(pictures)
        pictures += [None] * chunk.rows
        if encoder.layout.signals and roles.pictured:
            for row in range(chunk.rows):
                if first + row in pictured:
                    pictures[first + row] = draw_largest_share(
                        encoder.layout, batch, contributions, row, roles.pictured
                    )
    return Explained(pa.concat_arrays(reasons), pictures)
