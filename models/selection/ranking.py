"""How well a detector ranks held-back rows: by labels, and without any."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.batch import Batch, Layout
from models.detectors.detector import Detector
from models.selection.synthetic_anomalies import KINDS, PLANTINGS
from models.training.loop import scored

# Fewer labelled anomalies held back rank detectors by chance: with 5 and many normal rows the
# deviation of an AUROC of 0.9 is 0.09 (Hanley and McNeil, Radiology 1982, equation 2).
LEAST_ANOMALIES = 5

# Of each planting: an AUROC from so many rows is off by 0.01, less than plantings differ.
_PLANTED_ROWS = 1_000

PLANTED = f"mean AUROC against planted anomalies: {', '.join(KINDS)}"


def count_anomalies(rows: Batch) -> int:
    """Labelled anomalies to judge by; 0 where they, or the rows labelled normal, are too few."""
    if rows.label is None:
        return 0
    anomalous, normal = int((rows.label > 0.5).sum()), int((rows.label <= 0.5).sum())
    return anomalous if min(anomalous, normal) >= LEAST_ANOMALIES else 0


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """Share of pairs in which the anomaly scores higher; ties count half. [rows] each."""
    ordered = normal.sort().values
    below = torch.searchsorted(ordered, anomalous, right=False)
    at_most = torch.searchsorted(ordered, anomalous, right=True)
    return float((below + at_most).double().mean()) / 2 / len(normal)


def measure_agreement(scores: Sequence[Tensor]) -> list[float]:
    """Rank correlation (Spearman) of each detector's scores with the mean rank of all detectors,
    -1 to 1: scores [rows] each, of the same rows."""
    from scipy.stats import rankdata  # a second of start-up that only training needs

    ranks = [rankdata(one.numpy()) for one in scores]
    mean = rankdata(np.mean(ranks, axis=0))
    # Constant scores agree with nobody.
    varied = [bool(np.ptp(one)) and bool(np.ptp(mean)) for one in ranks]
    return [
        float(np.corrcoef(one, mean)[0, 1]) if varies else 0.0
        for one, varies in zip(ranks, varied, strict=True)
    ]


def plant_anomalies(rows: Batch, layout: Layout, seed: int) -> list[Batch]:
    """Anomalies of each planting made out of the first rows, on their device. They are drawn on
    the CPU: the same whatever the device."""
    generator = torch.Generator().manual_seed(seed)
    usual = rows._replace(label=None).take(slice(_PLANTED_ROWS)).to("cpu")
    return [make(usual, layout, generator).to(rows.numeric.device) for make in PLANTINGS]


class Judge:
    """AUROC of one detector by itself: against labelled anomalies where there are enough, else
    against anomalies planted in the held-back rows (`models.selection.synthetic_anomalies`)."""

    def __init__(self, layout: Layout, held_back: Batch, seed: int) -> None:
        self.parts: list[Batch]
        count, label = count_anomalies(held_back), held_back.label
        if count and label is not None:
            self.usual = held_back.take(label <= 0.5)
            self.parts = [held_back.take(label > 0.5)]
            self.criterion = f"AUROC by the labels of {count:,} held-back anomalies"
            return
        self.usual = held_back._replace(label=None)
        self.parts = plant_anomalies(held_back, layout, seed)
        self.criterion = PLANTED

    def __call__(self, detector: Detector) -> float:
        usual = scored(detector, self.usual)
        return float(np.mean([auroc(usual, scored(detector, part)) for part in self.parts]))
