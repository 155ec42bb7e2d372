"""Recurrent autoencoder of series, events and texts."""

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
class RecurrentAutoencoderConfig:
    """Options of `recurrent_autoencoder`."""

    hidden: int = 64  # units of the encoder's and of the decoder's cell
    latent: int = 16  # units of the bottleneck
    embedding: int = 32  # width of the vector for each code of tokens
    floor: float = 1e-3  # least held-back mean squared residual, in squared scaled units

    def __post_init__(self) -> None:
        expect(self.hidden >= 1, self, "hidden", "1 or more")
        expect(self.latent >= 1, self, "latent", "1 or more")
        expect(self.embedding >= 1, self, "embedding", "1 or more")
        expect(0 < self.floor < math.inf, self, "floor", "more than 0")


class RecurrentAutoencoder(Sequential):
    """Rebuilds each series and text from a few numbers, step by step.

    Encoder and decoder are gated recurrent units (Malhotra et al., "LSTM-based Encoder-Decoder for
    Multi-sensor Anomaly Detection", ICML 2016 workshop). As in the paper, the decoder runs
    backwards from the last step. Unlike in the paper, its input at each step is the bottleneck and
    never the step before, so all that it knows passed through the bottleneck.

    The score of a series is

        sum over channels c of the mean over steps t of  log(1 + r_ct^2 / v_ct)

    with r the residual and v the mean of r^2 over held-back rows, at least `floor`. Each step has
    its own v, since the steps furthest from the decoder's start always have the largest errors. The
    score of tokens is the mean of -log p over the codes. Padding does not count. Scores of several
    inputs are added up. Shares and maps are the terms of these sums; `expected` is the
    reconstruction.
    """

    Config = RecurrentAutoencoderConfig

    @classmethod
    def space(cls) -> Space:
        return {"hidden": OneOf((32, 64, 128)), "latent": OneOf((4, 8, 16, 32))}

    def model_series(self, series: SignalInput) -> Sequence:
        return SeriesCode(series, self.config)

    def model_tokens(self, tokens: TokenInput) -> Sequence:
        return EventCode(tokens, self.config)


class SeriesCode(Sequence):
    """Rebuilds one series."""

    variance: Tensor

    def __init__(self, series: SignalInput, config: RecurrentAutoencoderConfig) -> None:
        super().__init__()
        self.series = series
        self.floor = config.floor
        channels, steps = count_channels(series), series.shape[1]
        self.encoder = nn.GRU(series.shape[0], config.hidden, batch_first=True)
        self.bottleneck = nn.Linear(config.hidden, config.latent)
        self.decoder = nn.GRU(config.latent, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, channels)
        self.register_buffer("variance", torch.ones(channels, steps))

    def loss(self, signal: Tensor) -> Tensor:
        """Squared (Huber) error, averaged over steps and summed over channels: [rows]."""
        values, present = split_steps(self.series, signal)
        values = values.clamp(-LIMIT, LIMIT)
        error = 2 * F.huber_loss(self._decode(signal), values, reduction="none", delta=HUBER)
        return (error.sum(2) * present).sum(1) / present.sum(1).clamp_min(1)

    def score(self, signal: Tensor) -> Tensor:
        return self.explain(signal).share

    def explain(self, signal: Tensor) -> Explanation:
        squares, back = self._square_residuals(signal)
        _, present = split_steps(self.series, signal)
        there = present[:, None].float()
        terms = torch.log1p(squares / self.variance) * there / there.sum(2, True).clamp_min(1)
        places, expected = torch.zeros_like(signal), signal.clone()
        places[:, : terms.shape[1]] = terms
        expected[:, : terms.shape[1]] = back * there
        return Explanation(places.sum((1, 2)), places, expected)

    def calibrate(self, signals: list[Tensor]) -> None:
        """Measure the mean squared residual of each channel and step that any row has."""
        total = torch.zeros_like(self.variance, dtype=torch.float64)
        rows = torch.zeros_like(total)
        for signal in signals:
            _, present = split_steps(self.series, signal)
            total += (self._square_residuals(signal)[0] * present[:, None]).double().sum(0)
            rows += present[:, None].double().sum(0)
        usual = torch.where(rows > 0, total / rows.clamp_min(1), 1)
        self.variance.copy_(usual.clamp_min(self.floor))

    def _decode(self, signal: Tensor) -> Tensor:
        """The reconstruction of a series: [rows, steps, channels]."""
        _, last = run_cell(self.encoder, clamp_steps(self.series, signal))
        latent = self.bottleneck(last[0])
        states, _ = run_cell(self.decoder, latent[:, None].expand(-1, signal.shape[2], -1))
        back: Tensor = self.head(states).float().flip(1)
        return back

    def _square_residuals(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        """Squared residuals and the reconstruction: [rows, channels, steps] each."""
        values, _ = split_steps(self.series, signal)
        back = self._decode(signal)
        squares = (values.clamp(-LIMIT, LIMIT) - back).square()
        return squares.transpose(1, 2), back.transpose(1, 2)


class EventCode(Sequence):
    """Rebuilds the codes of one token input."""

    def __init__(self, tokens: TokenInput, config: RecurrentAutoencoderConfig) -> None:
        super().__init__()
        self.embedding = make_embedding(tokens, config.embedding)
        self.encoder = nn.GRU(config.embedding, config.hidden, batch_first=True)
        self.bottleneck = nn.Linear(config.hidden, config.latent)
        self.decoder = nn.GRU(config.latent, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, tokens.size)

    def loss(self, tokens: Tensor) -> Tensor:
        """Mean of -log p over the codes of a row: [rows]."""
        return self._measure_surprise(tokens)[0].sum(1)

    def score(self, tokens: Tensor) -> Tensor:
        return self._measure_surprise(tokens)[0].sum(1)

    def explain(self, tokens: Tensor) -> Explanation:
        surprise, likeliest = self._measure_surprise(tokens)
        return Explanation(surprise.sum(1), surprise, likeliest)

    def _measure_surprise(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """-log p of each code, divided by the number of codes, and the most probable codes.

        The decoder runs backwards: its k-th step predicts the k-th last code of the row.
        """
        count = measure_lengths(tokens)[:, None]
        place = torch.arange(tokens.shape[1], device=tokens.device)
        there = place < count
        mirror = torch.where(there, count - 1 - place, place)  # its own inverse
        blocks = cut_blocks(tokens)
        target, latent = tokens.gather(1, mirror), self._encode(tokens, blocks)
        state: Tensor | None = None
        surprises, codes = [], []
        for block in blocks:
            steps = len(place[block])
            states, state = run_cell(self.decoder, latent[:, None].expand(-1, steps, -1), state)
            odds = self.head(states).float().transpose(1, 2)  # [rows, codes, steps]
            surprises.append(F.cross_entropy(odds, target[:, block], reduction="none"))
            codes.append(odds.detach().argmax(1))
        length = tokens.shape[1]
        surprise = pad_to(torch.cat(surprises, 1), length).gather(1, mirror) * there
        likeliest = pad_to(torch.cat(codes, 1), length).gather(1, mirror) * there
        return surprise / count.clamp_min(1), likeliest

    def _encode(self, tokens: Tensor, blocks: list[slice]) -> Tensor:
        """The bottleneck after the last code of each row: [rows, latent]."""
        last = (measure_lengths(tokens) - 1).clamp_min(0)
        state: Tensor | None = None
        pieces = []
        for block in blocks:
            states, state = run_cell(self.encoder, self.embedding(tokens[:, block]), state)
            pieces.append(states)
        states = torch.cat(pieces, 1)
        final = last[:, None, None].expand(-1, 1, states.shape[2])
        latent: Tensor = self.bottleneck(states.gather(1, final)[:, 0])
        return latent
