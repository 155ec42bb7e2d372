"""Forecaster: predicts the next step of a series, or the next code of events and texts."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.detectors.autoencoder import HUBER
from models.detectors.bases.sequential import Explanation, Sequence, Sequential
from models.detectors.detector import expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import LIMIT
from models.layers.recurrent import (
    clamp_steps,
    count_channels,
    cut_blocks,
    make_embedding,
    measure_lengths,
    pad_to,
    run_cell,
    split_steps,
)
from models.layout import SignalInput, TokenInput


@dataclass(frozen=True)
class ForecasterConfig:
    """Options of `forecaster`."""

    hidden: int = 64  # units of the recurrent cell
    embedding: int = 32  # width of the vector for each code of tokens
    floor: float = 1e-3  # least held-back mean squared error of a channel, in squared scaled units

    def __post_init__(self) -> None:
        expect(self.hidden >= 1, self, "hidden", "1 or more")
        expect(self.embedding >= 1, self, "embedding", "1 or more")
        expect(0 < self.floor < math.inf, self, "floor", "more than 0")


class Forecaster(Sequential):
    """Predicts each step from the steps before it; scores by how wrong the prediction is.

    The predictor is a gated recurrent unit (Cho et al., EMNLP 2014). For a series the loss is the
    squared (Huber) error, averaged over steps and summed over channels. The score looks at the last
    step only, which is the row itself:

        sum over channels c of  log(1 + r_c^2 / v_c)

    with r_c the error and v_c its mean square over held-back rows, as in `autoencoder`. The network
    predicts the step itself, not the change (docs/decisions/sequence-scores.md).

    For events or a text the loss is the mean surprise, -log p(code | codes before) in nats, over
    all codes and the end of the row. The score is the root of the mean squared surprise, so that
    one very unlikely code outweighs many slightly unlikely ones. DeepLog (Du et al., CCS 2017,
    section 3.1) ranks codes instead, and does not predict the end; here a session that breaks off
    is surprising.

    Scores of several inputs are added up. Shares and maps are the terms of these sums; the surprise
    of the end is placed at the last code. `expected` is the prediction, for tokens the most
    probable code.
    """

    Config = ForecasterConfig

    @classmethod
    def space(cls) -> Space:
        return {"hidden": OneOf((32, 64, 128)), "embedding": OneOf((16, 32, 64))}

    def model_series(self, series: SignalInput) -> Sequence:
        return SeriesForecast(series, self.config)

    def model_tokens(self, tokens: TokenInput) -> Sequence:
        return EventForecast(tokens, self.config)


class SeriesForecast(Sequence):
    """Predicts the next step of one series."""

    variance: Tensor

    def __init__(self, series: SignalInput, config: ForecasterConfig) -> None:
        super().__init__()
        self.series = series
        self.floor = config.floor
        channels = count_channels(series)
        self.cell = nn.GRU(series.shape[0], config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, channels)
        self.register_buffer("variance", torch.ones(channels))

    def loss(self, signal: Tensor) -> Tensor:
        """Squared (Huber) error, averaged over the steps after the first: [rows]."""
        values, present = split_steps(self.series, signal)
        states, _ = run_cell(self.cell, clamp_steps(self.series, signal)[:, :-1])
        forecast, target = self.head(states).float(), values[:, 1:].clamp(-LIMIT, LIMIT)
        error = 2 * F.huber_loss(forecast, target, reduction="none", delta=HUBER)
        there = present[:, 1:].float()
        return (error.sum(2) * there).sum(1) / there.sum(1).clamp_min(1)

    def score(self, signal: Tensor) -> Tensor:
        squares, _ = self._square_errors(signal)
        return torch.log1p(squares / self.variance).sum(1)

    def explain(self, signal: Tensor) -> Explanation:
        squares, forecast = self._square_errors(signal)
        terms = torch.log1p(squares / self.variance)
        places, expected = torch.zeros_like(signal), signal.clone()
        places[:, : terms.shape[1], -1] = terms
        expected[:, : terms.shape[1], -1] = forecast
        return Explanation(terms.sum(1), places, expected)

    def calibrate(self, signals: list[Tensor]) -> None:
        """Measure the mean squared error of each channel."""
        rows = sum(map(len, signals))
        total = sum(self._square_errors(signal)[0].double().sum(0) for signal in signals)
        self.variance.copy_((torch.as_tensor(total) / rows).clamp_min(self.floor))

    def _square_errors(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Squared error and prediction of the last step: [rows, channels] each."""
        values, _ = split_steps(self.series, signal)
        _, last = run_cell(self.cell, clamp_steps(self.series, signal)[:, :-1])
        forecast = self.head(last[0]).float()
        return (values[:, -1].clamp(-LIMIT, LIMIT) - forecast).square(), forecast


class EventForecast(Sequence):
    """Predicts the next code of one token input."""

    def __init__(self, tokens: TokenInput, config: ForecasterConfig) -> None:
        super().__init__()
        self.embedding = make_embedding(tokens, config.embedding)
        self.cell = nn.GRU(config.embedding, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, tokens.size)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean surprise over the codes: [rows]."""
        surprise, _ = self._measure_surprise(tokens)
        return surprise.sum(1) / self._mask_codes(tokens).sum(1)

    def score(self, tokens: Tensor) -> Tensor:
        return self._score(tokens, self._measure_surprise(tokens)[0])

    def explain(self, tokens: Tensor) -> Explanation:
        surprise, likeliest = self._measure_surprise(tokens)
        score = self._score(tokens, surprise)
        weight = self._mask_codes(tokens).sum(1) * score
        terms = surprise.square() / weight.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        ended = measure_lengths(tokens)[:, None]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        places = torch.where(place < ended, terms, 0)
        places[:, :-1] += torch.where(place == ended, terms, 0)[:, 1:]
        return Explanation(score, places, torch.where(place <= ended, likeliest, 0))

    def _mask_codes(self, tokens: Tensor) -> Tensor:
        """True at the codes of a row and at its end, if there is room for one."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return place <= measure_lengths(tokens)[:, None]

    def _score(self, tokens: Tensor, surprise: Tensor) -> Tensor:
        return (surprise.square().sum(1) / self._mask_codes(tokens).sum(1)).sqrt()

    def _measure_surprise(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of each code and of the end, 0 after it; and the most probable codes."""
        before = F.pad(tokens[:, :-1], (1, 0))
        state: Tensor | None = None
        surprises, likeliest = [], []
        for block in cut_blocks(tokens):
            states, state = run_cell(self.cell, self.embedding(before[:, block]), state)
            odds = self.head(states).float().transpose(1, 2)  # [rows, codes, steps]
            surprises.append(F.cross_entropy(odds, tokens[:, block], reduction="none"))
            likeliest.append(odds.detach().argmax(1))
        length = tokens.shape[1]
        surprise = pad_to(torch.cat(surprises, 1), length) * self._mask_codes(tokens)
        return surprise, pad_to(torch.cat(likeliest, 1), length)
