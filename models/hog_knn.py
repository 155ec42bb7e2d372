"""k nearest neighbours of images, series and videos, compared by their oriented gradients."""

from dataclasses import dataclass

import torch

from models.convolution import lacks_spatial
from models.detector import Batch, Layout, expect
from models.gradient_histograms import DescribedInputs
from models.knn import KNN, KNNConfig


@dataclass(frozen=True)
class HOGKNNConfig(KNNConfig):
    """Options of `hog_knn`: those of `knn`, and how finely a signal is described."""

    cells: int = 6  # a side; 5 to 10 are as good to 0.004 on images, to 0.004 on spectrograms

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.cells >= 1, self, "cells", "1 or more")


class HOGKNN(KNN):
    """As `knn`, with each series, image, spectrogram and video described by histograms of its
    gradients (`models.gradient_histograms`), which change little when things move a little.

    Nothing is learned but the sample, so a few hundred rows will do. `expected` is the neighbour's
    row, and of a signal the mean of the sample.
    """

    Config = HOGKNNConfig
    inputs: DescribedInputs

    def __init__(self, layout: Layout, config: HOGKNNConfig) -> None:
        super().__init__(layout, config)
        self.inputs = DescribedInputs(layout, config.cells)
        self.register_buffer("bank", torch.zeros(config.sample_rows, self.inputs.width))

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return lacks_spatial(layout)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        self.inputs.fit(sample)
        super().fit(sample, seed)
