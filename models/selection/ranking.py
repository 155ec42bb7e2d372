"""Measure how well a detector ranks held-back rows, with labels or without."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.batch import Batch
from models.detectors.detector import Detector
from models.layout import Layout
from models.scores.quality import measure_auroc
from models.selection.synthetic_anomalies import KINDS, PLANTINGS
from models.training.loop import score_rows

# Labelled anomalies that a ranking needs. With 5 of them and many normal rows the standard
# deviation of an AUROC of 0.9 is 0.09 (Hanley and McNeil, Radiology 1982, equation 2).
LEAST_ANOMALIES = 5

# Rows of each planting: their AUROC is off by 0.01, less than plantings differ.
_PLANTED_ROWS = 1_000

PLANTED = f"mean AUROC against planted anomalies: {', '.join(KINDS)}"


def count_anomalies(rows: Batch) -> int:
    """The number of labelled anomalies; 0 if they, or the rows labelled normal, are too few."""
    if rows.label is None:
        return 0
    anomalous, normal = int((rows.label > 0.5).sum()), int((rows.label <= 0.5).sum())
    return anomalous if min(anomalous, normal) >= LEAST_ANOMALIES else 0


def measure_agreement(scores: Sequence[Tensor]) -> list[float]:
    """The rank correlation (Spearman) of each detector's scores with the mean ranks of all.

    `scores` are [rows] each, of the same rows. Each result is between -1 and 1; it is 0 for
    constant scores.
    """
    from scipy.stats import rankdata  # takes a second, which only training needs

    ranks = [rankdata(one.numpy()) for one in scores]
    mean = rankdata(np.mean(ranks, axis=0))
    varied = [bool(np.ptp(one)) and bool(np.ptp(mean)) for one in ranks]
    return [
        float(np.corrcoef(one, mean)[0, 1]) if varies else 0.0
        for one, varies in zip(ranks, varied, strict=True)
    ]


def plant_anomalies(rows: Batch, layout: Layout, seed: int) -> list[Batch]:
    """For each of PLANTINGS, anomalies made from the first rows, on the device of the rows.

    They are drawn on the CPU, so that they are the same on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    usual = rows._replace(label=None).take(slice(_PLANTED_ROWS)).to("cpu")
    return [make(usual, layout, generator).to(rows.numeric.device) for make in PLANTINGS]


class Judge:
    """Measures the AUROC of one detector on held-back rows.

    Against labelled anomalies if there are enough, else against anomalies planted in the held-back
    rows (`models.selection.synthetic_anomalies`). `criterion` says which.
    """

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
        usual = score_rows(detector, self.usual)
        return float(
            np.mean([measure_auroc(usual, score_rows(detector, part)) for part in self.parts])
        )
