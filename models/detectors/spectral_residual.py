"""Spectral residual: how much the last step of a window differs from what repeats in it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.bases.sequential import require_only_series
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import LIMIT
from models.layers.recurrent import count_channels
from models.layout import Layout

# Added to amplitudes before the logarithm, and the least mean saliency to divide by: all amplitudes
# but one are 0 for a window that never moves.
_TINY = 1e-3


@dataclass(frozen=True)
class SpectralResidualConfig:
    """Options of `spectral_residual`. The defaults are the authors'."""

    smoothing: int = 3  # frequencies over which amplitudes are averaged
    points: int = 5  # steps extrapolated after the last, and steps that the extrapolation uses
    sample_rows: int = 1_000  # rows of the training days; nothing is learned from them

    def __post_init__(self) -> None:
        expect(self.smoothing >= 1 and self.smoothing % 2 == 1, self, "smoothing", "odd, 1 or more")
        expect(self.points >= 1, self, "points", "1 or more")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class SpectralResidual(Detector):
    """Finds a last step that stands out from the frequencies of its window.

    Ren et al., "Time-Series Anomaly Detection Service at Microsoft", KDD 2019, section 3.1. The
    window is transformed to frequencies, and the average over neighbouring frequencies is
    subtracted from each log amplitude. The rest is transformed back to steps; its size is the
    saliency S. The score is

        sum over channels c of  max(0, S_c(last) / mean of S_c - 1)

    The method needs steps on both sides, so extrapolated steps follow the last one (equation 6). As
    in the authors' code they use the steps before the last, so that a spike there does not look
    like the start of a plateau. Nothing is learned: each window is its own reference. It does not
    see a change that lasts, only where the change began.

    Shares are the terms of the sum; `expected` is the last step extrapolated from those before.
    """

    Config = SpectralResidualConfig
    eager = "torch's exporter has no Fourier transform"
    learns = "sample"

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_only_series(layout)

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    def fit(self, sample: Batch, seed: int) -> None:
        """Learn nothing: each window is its own reference."""

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return torch.stack([salient.sum(1) for salient in self._compare_last(batch)]).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        by_series = self._compare_last(batch)
        maps, expected = [], []
        for signal, salient in zip(batch.signals, by_series, strict=True):
            channels = salient.shape[1]
            places, guess = torch.zeros_like(signal), signal.clone()
            places[:, :channels, -1] = salient
            before = signal[:, :channels, :-1].clamp(-LIMIT, LIMIT)
            guess[:, :channels, -1] = self._extrapolate(before)
            maps.append(places)
            expected.append(guess)
        shares = torch.stack([salient.sum(1) for salient in by_series], 1)
        row = Batch(batch.numeric, batch.codes, None, tuple(expected))
        return Contributions(shares, row, tuple(maps))

    def _compare_last(self, batch: Batch) -> list[Tensor]:
        """How far the saliency of the last step is above the mean: [rows, channels] a series."""
        batch.check(self.layout)
        salient = []
        for series, signal in zip(self.layout.signals, batch.signals, strict=True):
            values = signal[:, : count_channels(series)].clamp(-LIMIT, LIMIT)
            saliency = self._measure_saliency(values)
            usual = saliency.mean(2).clamp_min(_TINY)
            salient.append((saliency[..., values.shape[2] - 1] / usual - 1).clamp_min(0))
        return salient

    def _measure_saliency(self, values: Tensor) -> Tensor:
        """Saliency of the steps and the extrapolated steps: [rows, channels, steps + points]."""
        guess = self._extrapolate(values[..., :-1])[..., None].expand(-1, -1, self.config.points)
        extended = torch.cat([values, guess], 2)
        if not len(extended):  # torch cannot transform 0 rows
            return extended
        spectrum = torch.fft.fft(extended)
        log = torch.log(spectrum.abs() + _TINY)
        reach = self.config.smoothing // 2
        around = F.pad(log, (reach, reach), mode="circular") if reach else log
        usual = F.avg_pool1d(around, self.config.smoothing, 1)
        residual = torch.polar(torch.exp(log - usual), spectrum.angle())
        saliency: Tensor = torch.fft.ifft(residual).abs()
        return saliency

    def _extrapolate(self, values: Tensor) -> Tensor:
        """The step that follows, extrapolated: [rows, channels].

        It is the step `points` before it, plus `points` times the mean slope of the lines from the
        earlier steps to the last one.
        """
        back = min(self.config.points, values.shape[2] - 1)
        if back < 1:
            return values[..., -1]
        last, before = values[..., -1:], values[..., -1 - back : -1]
        distance = torch.arange(back, 0, -1, device=values.device, dtype=values.dtype)
        slope = ((last - before) / distance).mean(2)
        guess: Tensor = values[..., -back] + slope * back
        return guess
