"""Gaussian: the Mahalanobis distance from the mean, with a shrunk covariance."""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.search_space import Between, Space
from models.layers.band_statistics import BandStatistics
from models.layers.covariance import Scatter
from models.layers.described_inputs import DescribedInputs, Description
from models.layers.gradient_histograms import Histograms
from models.layout import Layout, SignalInput
from models.refusal import Refusal

# Least variance in any direction, in squared scaled units. Columns that repeat each other, and the
# columns of a category, which add up to 1, have directions without any variance.
_LEAST_VARIANCE = 1e-3
_WIDEST = 4096  # numbers in a row; a covariance of this width has 64 MB and takes half a minute
_ROWS = 4096  # rows of the sample that are summed up at once


@dataclass(frozen=True)
class GaussianConfig:
    """Options of `gaussian`."""

    # Weight of a multiple of the identity in the covariance, 0 to 1; None: of least expected error.
    shrinkage: float | None = None
    cells: int = 16  # approximate number of cells of an image or a video, as in `hog_knn`
    sample_rows: int = 100_000  # rows of the training days that it is fitted on

    def __post_init__(self) -> None:
        share = self.shrinkage
        expect(share is None or 0 <= share <= 1, self, "shrinkage", "0 to 1, or null")
        expect(self.cells >= 1, self, "cells", "1 or more")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class Gaussian(Detector):
    """Mahalanobis distance from the mean row, under a shrunk covariance.

    The score is the squared distance. The covariance is estimated as by Ledoit & Wolf (J.
    Multivariate Analysis 2004), which also works with fewer rows than columns. For frozen
    embeddings this simple detector is among the best (Rippel, Mertens & Merhof, ICPR 2020,
    arXiv:2005.14140).

    A spectrogram is described by statistics of its bands (`models.layers.band_statistics`), an
    image and a video by histograms of gradients (`models.layers.gradient_histograms`), a series and
    a vector by all their numbers.

    Shares are the squares of the symmetrically whitened row, as in `pca`, at least 0. `expected` is
    the mean of each number given all other numbers of the row (the conditional mean of a Gaussian);
    for a described signal the mean, for a category the most frequent code.
    """

    Config = GaussianConfig
    learns = "sample"
    mean: Tensor
    whitening: Tensor
    partial: Tensor

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        width = cls._make_inputs(layout, GaussianConfig.cells).width
        if width <= _WIDEST:
            return None
        return f"expected at most {_WIDEST:,} numbers a row, found {width:,}"

    @classmethod
    def space(cls) -> Space:
        return {"shrinkage": Between(1e-4, 0.9, log=True)}

    def __init__(self, layout: Layout, config: GaussianConfig) -> None:
        super().__init__(layout, config)
        self.inputs = self._make_inputs(layout, config.cells)
        width = self.inputs.width
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))  # root of the inverse covariance
        self.register_buffer("partial", torch.ones(width))  # variance of each given the others

    @staticmethod
    def _make_inputs(layout: Layout, cells: int) -> DescribedInputs:
        def describe(signal: SignalInput) -> Description | None:
            if signal.kind == "spectrogram":
                return BandStatistics(signal)
            return None if signal.kind == "series" else Histograms(signal, cells)

        return DescribedInputs(layout, describe)

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit mean and covariance; `seed` is not used. Raises Refusal for fewer than 2 rows."""
        rows = len(sample.numeric)
        if rows < 2:
            raise Refusal(f"expected at least 2 rows to fit a covariance, found {rows}")
        self.inputs.fit(sample)
        parts = (sample.take(slice(start, start + _ROWS)) for start in range(0, rows, _ROWS))
        scatter = reduce(Scatter.combine, (Scatter.from_rows(self.inputs(part)) for part in parts))
        # On the CPU, once, so that the result is the same to the bit on every device.
        variances, axes = torch.linalg.eigh(scatter.shrink(self.config.shrinkage).cpu())
        variances = variances.clamp_min(_LEAST_VARIANCE)
        self.mean.copy_(scatter.mean)
        self.whitening.copy_(axes * variances.rsqrt() @ axes.T)
        self.partial.copy_(1 / (axes.square() @ (1 / variances)))

    def score(self, batch: Batch) -> Tensor:
        return self._whiten(self.inputs(batch)).square().sum(1)

    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        whitened = self._whiten(columns)
        squares = whitened.square()
        given_others = columns - (whitened @ self.whitening) * self.partial
        numbers = self.inputs.width - sum(self.inputs.sizes)
        usual = self.mean[numbers:].expand(len(columns), -1)
        expected = self.inputs.decode(torch.cat([given_others[:, :numbers], usual], 1))
        maps = self.inputs.map_places(squares, batch)
        return Contributions(self.inputs.sum_by_feature(squares), expected, maps)

    def _whiten(self, columns: Tensor) -> Tensor:
        """The rows, symmetrically whitened: [rows, width]."""
        return (columns - self.mean) @ self.whitening
