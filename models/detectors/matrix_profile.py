"""Matrix profile: series whose recent shape was never seen before are anomalous."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Contributions, Layout
from models.detectors.bases.sequential import require_only_series
from models.detectors.detector import expect
from models.detectors.knn import KNN, KNNConfig
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import LIMIT, Inputs


@dataclass(frozen=True)
class MatrixProfileConfig(KNNConfig):
    """Options of `matrix_profile`."""

    neighbours: int = 1  # the mean distance to so many counts
    locality: float = 0.0  # as of `knn`; 0: the distance as it is
    level: float = 0.1  # least deviation by which a window is divided, in scaled units

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.level > 0, self, "level", "more than 0")


class MatrixProfile(KNN):
    """Distance of the window to the most alike one of the training sample, each channel with its
    own mean taken off and divided by its own deviation (Yeh et al., "Matrix Profile I", ICDM 2016,
    section II; between two series, an "AB-join"): what counts is shape, not level or size.

    A window that hardly moves is divided by `level`: its noise is no shape. The windows of a sample
    start anywhere, so there is no need to slide one over another. Shares are as in `knn`;
    `expected` is the neighbour at the level and of the size of the row.
    """

    Config = MatrixProfileConfig

    @classmethod
    def space(cls) -> Space:
        return {"neighbours": OneOf((1, 3, 5))}

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_only_series(layout)

    def make_inputs(self, layout: Layout) -> Inputs:
        return ShapeInputs(layout, self.config.level)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        found = super().contributions(batch)
        signals = []
        for signal, shape in zip(batch.signals, found.expected.signals, strict=True):
            mean, width = measure_level_and_size(signal, self.config.level)
            signals.append(shape * width + mean)
        return found._replace(expected=found.expected._replace(signals=tuple(signals)))


class ShapeInputs(Inputs):
    """As `Inputs`, each channel of a series with zero mean and unit deviation over its steps."""

    def __init__(self, layout: Layout, level: float) -> None:
        super().__init__(layout, embed=False)
        self.level = level

    def make_columns(self, batch: Batch) -> Tensor:
        self.layout.check(batch)
        shapes = []
        for signal in batch.signals:
            mean, width = measure_level_and_size(signal, self.level)
            shapes.append((signal - mean) / width)
        return super().make_columns(batch._replace(signals=tuple(shapes)))


def measure_level_and_size(signal: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation over the steps of each channel, at least `least`: [rows, channels, 1]."""
    signal = signal.clamp(-LIMIT, LIMIT)  # squares of larger ones overflow
    mean = signal.mean(2, keepdim=True)
    width = (signal - mean).square().mean(2, keepdim=True).sqrt()
    return mean, width.clamp_min(least)
