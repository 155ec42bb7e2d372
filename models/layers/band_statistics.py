"""Describe a spectrogram by the mean and deviation of each band over time."""

import torch
from torch import Tensor, nn

from models.layout import SignalInput


class BandStatistics(nn.Module):
    """How loud each band is and how much that changes, whenever it happens.

    docs/decisions/signal-descriptions.md compares this with other descriptions of sounds.
    """

    def __init__(self, signal: SignalInput) -> None:
        super().__init__()
        self.channels, self.bands, self.steps = signal.shape
        self.width = 2 * self.channels * self.bands

    def forward(self, values: Tensor) -> Tensor:
        """Values [rows, channels, bands, steps] to means and deviations [rows, width]."""
        deviation, mean = torch.std_mean(values, 3, correction=0)
        return torch.cat([mean, deviation], 1).flatten(1)

    def distribute(self, shares: Tensor) -> Tensor:
        """Divide shares of the statistics [rows, width] among the numbers of the spectrogram.

        The share of a band is divided evenly over its steps: [rows, channels * bands * steps].
        """
        bands = shares.reshape(len(shares), 2, self.channels, self.bands).sum(1)
        return (bands / self.steps)[..., None].expand(*bands.shape, self.steps).flatten(1)
