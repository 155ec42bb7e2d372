"""Matrix profile: the distance of a window to the window of the sample with the nearest shape."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.bases.sequential import require_only_series
from models.detectors.detector import expect
from models.detectors.knn import KNN, KNNConfig
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import LIMIT, Inputs
from models.layout import Layout


@dataclass(frozen=True)
class MatrixProfileConfig(KNNConfig):
    """Options of `matrix_profile`: those of `knn` and the least size of a window."""

    neighbours: int = 1  # number of nearest windows whose mean distance counts
    locality: float = 0.0  # as in `knn`; 0: plain distance
    level: float = 0.1  # least deviation by which a window is divided, in scaled units

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.level > 0, self, "level", "more than 0")


class MatrixProfile(KNN):
    """Compares the shape of a window with windows seen before, whatever its level and size.

    The score is the distance to the most similar window of the training sample; the mean of each
    channel is first subtracted and its deviation divided out (Yeh et al., "Matrix Profile I", ICDM
    2016, section II; an "AB-join" of two series). A window that hardly moves is divided by `level`,
    since its noise is not a shape. The windows of the sample start anywhere, so they need not be
    shifted against each other. Shares are those of `knn`; `expected` is the most similar window at
    the level and size of the row.
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
        explained = super().contributions(batch)
        signals = []
        for signal, shape in zip(batch.signals, explained.expected.signals, strict=True):
            mean, width = measure_level_and_size(signal, self.config.level)
            signals.append(shape * width + mean)
        return explained._replace(expected=explained.expected._replace(signals=tuple(signals)))


class ShapeInputs(Inputs):
    """`Inputs` in which each channel of a series has mean 0 and deviation 1 over its steps."""

    def __init__(self, layout: Layout, level: float) -> None:
        super().__init__(layout, embed=False)
        self.level = level

    def make_columns(self, batch: Batch) -> Tensor:
        batch.check(self.layout)
        shapes = []
        for signal in batch.signals:
            mean, width = measure_level_and_size(signal, self.level)
            shapes.append((signal - mean) / width)
        return super().make_columns(batch._replace(signals=tuple(shapes)))


def measure_level_and_size(signal: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """Mean, and deviation of at least `least`, of each channel: [rows, channels, 1] each."""
    signal = signal.clamp(-LIMIT, LIMIT)  # the squares of larger numbers overflow
    mean = signal.mean(2, keepdim=True)
    width = (signal - mean).square().mean(2, keepdim=True).sqrt()
    return mean, width.clamp_min(least)
