"""Anomaly likelihood: whether a step is predicted worse than the steps before it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions
from models.detectors.bases.sequential import require_only_series
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import LIMIT
from models.layers.recurrent import count_channels, split_steps
from models.layout import Layout, SignalInput
from models.refusal import Refusal

# Least deviation of squared errors to divide by, in squared scaled units: a window that never moves
# is predicted without error. From 1e-6 to 1e-2 the NAB score was the same.
_LEAST_DEVIATION = 1e-3
# Windows whose products are added up at once: 72 MB for 1,000 steps and 8 channels.
_ROWS = 256


@dataclass(frozen=True)
class AnomalyLikelihoodConfig:
    """Options of `anomaly_likelihood`."""

    order: int = 8  # steps from which the next is predicted
    # Number of last squared errors that are averaged. The authors average 10 noisy scores, which
    # needs a window of thousands of steps.
    recent: int = 1
    ridge: float = 1.0  # penalty on squared weights, in steps of unit variance
    prior: float = 10.0  # steps of a window for which the errors of the training rows count
    sample_rows: int = 2_000  # rows of the training days, each a window

    def __post_init__(self) -> None:
        expect(self.order >= 1, self, "order", "1 or more")
        expect(self.recent >= 1, self, "recent", "1 or more")
        expect(0 < self.ridge < math.inf, self, "ridge", "more than 0")
        expect(0 < self.prior < math.inf, self, "prior", "more than 0")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class AnomalyLikelihood(Detector):
    """Predicts the last step and compares the error with earlier errors in the same window.

    Each step is predicted from those before by a linear autoregression. The score is how unlikely
    the last squared error is (Lavin & Ahmad, "Evaluating Real-time Anomaly Detection Algorithms",
    ICMLA 2015, section III-B, where the errors are those of a sequence memory):

        sum over channels c of  -log Q((a_c - m_c) / s_c)

    with a the mean of the last `recent` squared errors, m and s the mean and deviation of such
    means earlier in the window that share no error with a, and Q the upper tail of the standard
    normal distribution. A series that becomes hard to predict is therefore surprising once, not all
    day. With a longer window, a day or more, only a rarer error is surprising.

    The mean and deviation of a in training count as `prior` steps of every window, so that short
    windows can be scored too. If the last step is missing the score is 0.

    Shares are the terms of the sum; `expected` is the prediction of the last step.
    """

    Config = AnomalyLikelihoodConfig
    eager = "ONNX has no logarithm of the normal tail"
    learns = "sample"

    def __init__(self, layout: Layout, config: AnomalyLikelihoodConfig) -> None:
        super().__init__(layout, config)
        self.series = nn.ModuleList(_Series(series, config) for series in layout.signals)

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_only_series(layout)

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit the predictions; `seed` is not used. Raises Refusal if there are no rows."""
        if not len(sample.numeric):
            raise Refusal("expected rows to learn predictions from, found none")
        sample.check(self.layout)
        for series, signal in zip(self.series, sample.signals, strict=True):
            series.fit(signal)  # type: ignore[operator]

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return torch.stack([terms.sum(1) for terms, _ in self._judge(batch)]).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        judged = self._judge(batch)
        maps, expected = [], []
        for signal, (terms, forecast) in zip(batch.signals, judged, strict=True):
            channels = terms.shape[1]
            places, usual = torch.zeros_like(signal), signal.clone()
            places[:, :channels, -1] = terms
            usual[:, :channels, -1] = forecast
            maps.append(places)
            expected.append(usual)
        shares = torch.stack([terms.sum(1) for terms, _ in judged], 1)
        row = Batch(batch.numeric, batch.codes, None, tuple(expected))
        return Contributions(shares, row, tuple(maps))

    def _judge(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Terms of the score and predictions, [rows, channels] each, for each series."""
        batch.check(self.layout)
        return [s(signal) for s, signal in zip(self.series, batch.signals, strict=True)]


class _Series(nn.Module):
    """The predictions of one series, each channel from itself."""

    weights: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, series: SignalInput, config: AnomalyLikelihoodConfig) -> None:
        super().__init__()
        self.series, self.config = series, config
        self.order = min(config.order, series.shape[1] - 1)
        channels = count_channels(series)
        # Weights of the steps before, the oldest first, then the constant.
        self.register_buffer("weights", torch.zeros(channels, self.order + 1))
        # Mean and variance, in training, of the mean of `recent` squared errors.
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def fit(self, signal: Tensor) -> None:
        """Regress each step on those before (ridge regression), then measure the errors."""
        pieces = torch.split(signal, _ROWS)
        products = torch.stack([self._sum_products(some) for some in pieces]).sum(0)
        inputs, target = products[:, :-1, :-1], products[:, :-1, -1]
        penalty = self.config.ridge * torch.eye(self.order + 1, device=signal.device).double()
        self.weights.copy_(torch.linalg.solve(inputs + penalty, target))
        count = torch.zeros_like(self.mean, dtype=torch.float64)
        total, squares = torch.zeros_like(count), torch.zeros_like(count)
        for some in pieces:
            errors, there, _ = self._measure_errors(some)
            errors = errors.double() * there
            count += there.sum((0, 2)).double()
            total += errors.sum((0, 2))
            squares += errors.square().sum((0, 2))
        mean = total / count.clamp_min(1)
        self.mean.copy_(mean)
        self.variance.copy_((squares / count.clamp_min(1) - mean.square()).clamp_min(0))

    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Terms of the score and predictions of the last step: [rows, channels] each."""
        errors, there, forecast = self._measure_errors(signal)
        last = errors[..., -1]
        before = max(0, errors.shape[2] - self.config.recent)
        past, counted = errors[..., :before], there[..., :before].float()
        steps = counted.sum(2) + self.config.prior
        mean = ((past * counted).sum(2) + self.config.prior * self.mean) / steps
        squares = ((past - mean[..., None]).square() * counted).sum(2)
        squares += self.config.prior * (self.variance + (self.mean - mean).square())
        deviation = (squares / steps).sqrt().clamp_min(_LEAST_DEVIATION)
        terms = -torch.special.log_ndtr((mean - last) / deviation)
        return terms * there[..., -1], forecast[..., -1]

    def _measure_errors(self, signal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each step with `order` steps before it: the mean of the last `recent` squared errors
        [rows, channels, steps - order], whether all these steps are there [rows, 1, steps - order],
        and the prediction [rows, channels, steps - order]."""
        values, there = self._split_values(signal)
        forecast = self._forecast(values)
        known = there.unfold(1, self.order + 1, 1).all(2)[:, None]
        squares = (values[..., self.order :] - forecast).square() * known
        recent = min(self.config.recent, squares.shape[2])
        if recent > 1:
            squares = _sum_trailing(squares, recent) / _sum_trailing(
                known.float(), recent
            ).clamp_min(1)
        return squares, known, forecast

    def _forecast(self, values: Tensor) -> Tensor:
        steps = values.shape[2] - self.order
        forecast = self.weights[:, -1:].expand(len(values), -1, steps)
        for lag in range(self.order):
            forecast = forecast + self.weights[:, lag, None] * values[..., lag : lag + steps]
        return forecast

    def _sum_products(self, signal: Tensor) -> Tensor:
        """Products of (steps before, 1, step) with each other, added up over all rows and steps:
        float64 [channels, order + 2, order + 2]."""
        values, there = self._split_values(signal)
        lessons = values.unfold(2, self.order + 1, 1)  # [rows, channels, lessons, order + 1]
        known = there.unfold(1, self.order + 1, 1).all(2)
        one = torch.ones_like(lessons[..., :1])
        vectors = torch.cat([lessons[..., :-1], one, lessons[..., -1:]], 3)
        vectors = (vectors * known[:, None, :, None]).transpose(0, 1).flatten(1, 2).double()
        return vectors.mT @ vectors

    def _split_values(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Values [rows, channels, steps], and whether each step is there [rows, steps]."""
        _, there = split_steps(self.series, signal)
        return signal[:, : count_channels(self.series)].clamp(-LIMIT, LIMIT), there


def _sum_trailing(values: Tensor, steps: int) -> Tensor:
    """Sums over the last `steps` steps; over fewer at the start."""
    padded = nn.functional.pad(values, (steps - 1, 0))
    return padded.unfold(-1, steps, 1).sum(-1)
