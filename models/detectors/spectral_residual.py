"""Spectral residual: the last step of a window stands out from what repeats in it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions, Layout
from models.detectors.bases.sequential import require_only_series
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import LIMIT
from models.layers.recurrent import count_channels

# Added to amplitudes before their logarithm is taken, and least mean saliency that is divided by:
# of a window that never moves, all amplitudes but one are zero.
_TINY = 1e-3


@dataclass(frozen=True)
class SpectralResidualConfig:
    """Options of `spectral_residual`; the defaults are the authors'."""

    smoothing: int = 3  # frequencies over which the usual amplitude is averaged
    points: int = 5  # steps that are guessed beyond the last, and steps that the guess looks back
    sample_rows: int = 1_000  # rows of the training days; none is needed, and few are fetched

    def __post_init__(self) -> None:
        expect(self.smoothing >= 1 and self.smoothing % 2 == 1, self, "smoothing", "odd, 1 or more")
        expect(self.points >= 1, self, "points", "1 or more")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class SpectralResidual(Detector):
    """Ren et al., "Time-Series Anomaly Detection Service at Microsoft", KDD 2019, section 3.1.

    A window is taken to frequencies; of each log amplitude the average of its neighbours is taken
    off; what is left is taken back to steps and its size is the saliency S. The score is

        sum over channels c of  max(0, S_c(last) / mean of S_c - 1)

    The method wants a step amid others, so the last is followed by guesses (equation 6), as in the
    authors' code from the steps before the last: a spike there must not look like the first step
    of a plateau. Nothing is learned: a window is its own reference. Blind to a change that lasts:
    what is salient is where it began.

    Shares are the terms of the sum; `expected` is the guess for the last step itself, from the
    steps before.
    """

    Config = SpectralResidualConfig
    learns = "sample"

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_only_series(layout)

    def loss(self, batch: Batch) -> Tensor:
        """The score: there is no other loss."""
        return self.score(batch)

    def fit(self, sample: Batch, seed: int) -> None:
        """Nothing: every window is its own reference."""

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return torch.stack([salient.sum(1) for salient in self._compare_last(batch)]).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        found = self._compare_last(batch)
        maps, expected = [], []
        for signal, salient in zip(batch.signals, found, strict=True):
            channels = salient.shape[1]
            places, guess = torch.zeros_like(signal), signal.clone()
            places[:, :channels, -1] = salient
            before = signal[:, :channels, :-1].clamp(-LIMIT, LIMIT)
            guess[:, :channels, -1] = self._extrapolate(before)
            maps.append(places)
            expected.append(guess)
        shares = torch.stack([salient.sum(1) for salient in found], 1)
        row = Batch(batch.numeric, batch.codes, None, tuple(expected))
        return Contributions(shares, row, tuple(maps))

    def _compare_last(self, batch: Batch) -> list[Tensor]:
        """How far the last step's saliency is above the mean, of each series: [rows, channels]."""
        self.layout.check(batch)
        found = []
        for given, signal in zip(self.layout.signals, batch.signals, strict=True):
            values = signal[:, : count_channels(given)].clamp(-LIMIT, LIMIT)
            saliency = self._measure_saliency(values)
            usual = saliency.mean(2).clamp_min(_TINY)
            found.append((saliency[..., values.shape[2] - 1] / usual - 1).clamp_min(0))
        return found

    def _measure_saliency(self, values: Tensor) -> Tensor:
        """Saliency of each step and of the guesses behind: [rows, channels, steps + points]."""
        guess = self._extrapolate(values[..., :-1])[..., None].expand(-1, -1, self.config.points)
        spectrum = torch.fft.fft(torch.cat([values, guess], 2))
        log = torch.log(spectrum.abs() + _TINY)
        reach = self.config.smoothing // 2
        around = F.pad(log, (reach, reach), mode="circular") if reach else log
        usual = F.avg_pool1d(around, self.config.smoothing, 1)
        residual = torch.polar(torch.exp(log - usual), spectrum.angle())
        saliency: Tensor = torch.fft.ifft(residual).abs()
        return saliency

    def _extrapolate(self, values: Tensor) -> Tensor:
        """A guess for the step that follows, [rows, channels]: the step `points` before it, and
        so many times the mean slope of the lines to the last step from those before."""
        back = min(self.config.points, values.shape[2] - 1)
        if back < 1:
            return values[..., -1]
        last, before = values[..., -1:], values[..., -1 - back : -1]
        distance = torch.arange(back, 0, -1, device=values.device, dtype=values.dtype)
        slope = ((last - before) / distance).mean(2)
        guess: Tensor = values[..., -back] + slope * back
        return guess
