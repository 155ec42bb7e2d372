"""k nearest neighbours of signals, compared by histograms of oriented gradients (HOG)."""

from dataclasses import dataclass

import torch

from models.batch import Batch
from models.detectors.detector import expect
from models.detectors.knn import KNN, KNNConfig
from models.layers.convolution import require_spatial
from models.layers.described_inputs import DescribedInputs
from models.layers.gradient_histograms import Histograms
from models.layout import Layout


@dataclass(frozen=True)
class HOGKNNConfig(KNNConfig):
    """Options of `hog_knn`: those of `knn` and how finely a signal is described."""

    # Approximate number of cells of a signal: 36 are 6 a side of an image. With 25 to 100 the AUROC
    # on Fashion-MNIST and spoken digits was the same to 0.005.
    cells: int = 36

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.cells >= 1, self, "cells", "1 or more")


class HOGKNN(KNN):
    """Distance to the nearest rows, with signals compared by the directions of their edges.

    As `knn`, but each series, image, spectrogram and video is described by histograms of its
    gradients (`models.layers.gradient_histograms`), which change little when something moves a
    little. It only stores a sample, so a few hundred rows are enough. `expected` is the nearest
    row, and for a described signal the mean of the sample.
    """

    Config = HOGKNNConfig
    inputs: DescribedInputs

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_spatial(layout)

    def make_inputs(self, layout: Layout) -> DescribedInputs:
        return DescribedInputs(layout, lambda signal: Histograms(signal, self.config.cells))

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        self.inputs.fit(sample)
        super().fit(sample, seed)
