"""k nearest neighbours of images, series and videos, compared by their oriented gradients."""

from dataclasses import dataclass

import torch

from models.batch import Batch, Layout
from models.detectors.detector import expect
from models.detectors.knn import KNN, KNNConfig
from models.layers.convolution import require_spatial
from models.layers.described_inputs import DescribedInputs
from models.layers.gradient_histograms import Histograms


@dataclass(frozen=True)
class HOGKNNConfig(KNNConfig):
    """Options of `hog_knn`: those of `knn`, and how finely a signal is described."""

    # That a signal is divided into, about: an image has 6 a side, a video 3. 25 to 100 are as good
    # to 0.005 on Fashion-MNIST and spoken digits.
    cells: int = 36

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.cells >= 1, self, "cells", "1 or more")


class HOGKNN(KNN):
    """As `knn`, with each series, image, spectrogram and video described by histograms of its
    gradients (`models.layers.gradient_histograms`), which change little when things move a little.

    Nothing is learned but the sample, so a few hundred rows will do. `expected` is the neighbour's
    row, and of a signal the mean of the sample.
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
