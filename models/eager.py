"""A detector that is run by torch, on any device."""

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch

from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.evidence import Evidence

Floats = npt.NDArray[np.float32]


class EagerModel:
    """An encoder and a detector on one device. Rows are scored and explained in chunks of one size,
    so that a row's score does not depend on how rows were batched."""

    def __init__(self, encoder: Encoder, detector: Detector, device: torch.device | str) -> None:
        self.encoder, self.detector = encoder.to(device).eval(), detector.to(device).eval()

    def score(self, raw: RawBatch) -> Floats:
        """The score of each row, float32 [rows]."""
        return score_rows(self.encoder, {"": self.detector}, raw)[""]

    def explain(self, raw: RawBatch) -> Iterator[tuple[RawBatch, Evidence]]:
        """Yield the rows in parts, each with the evidence for its scores."""
        for part, padded in raw.cut(self.encoder.layout.explained_rows):
            batch = self.encoder(padded)
            evidence = self.detector.contributions(batch).to_evidence(batch)
            yield part, evidence.take(slice(part.rows))


@torch.inference_mode()
def score_rows(
    encoder: Encoder, detectors: Mapping[str, Detector], raw: RawBatch
) -> dict[str, Floats]:
    """The score of every row by every detector, on the device of the encoder: float32 [rows] each.

    Each chunk is scored while it is in the cache.
    """
    parts: dict[str, list[Floats]] = {name: [np.empty(0, np.float32)] for name in detectors}
    for part, padded in raw.cut(encoder.layout.chunk_rows):
        batch = encoder(padded)
        for name, detector in detectors.items():
            parts[name].append(detector.score(batch)[: part.rows].float().cpu().numpy())
    return {name: np.concatenate(found) for name, found in parts.items()}
