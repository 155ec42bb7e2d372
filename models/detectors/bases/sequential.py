"""Base of detectors that read series, events and texts step by step."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions
from models.detectors.autoencoder import Autoencoder, AutoencoderConfig
from models.detectors.detector import Detector
from models.layout import Layout, SignalInput, TokenInput
from models.refusal import Refusal

# Rows that are scored at once: the outputs for 1,024 texts take 70 MB a block of 64 bytes. A GPU
# waits for each step of a cell, however few its rows are.
_ROWS, _GPU_ROWS = 1024, 16_384


class Explanation(NamedTuple):
    """What one input of a batch adds to the score, in total and at each place."""

    share: Tensor  # float32 [rows]
    places: Tensor  # float32, the shape of the input
    expected: Tensor  # the shape and type of the input


class Sequence(nn.Module, ABC):
    """The model of one series or one token input."""

    @abstractmethod
    def loss(self, values: Tensor) -> Tensor:
        """Training loss of each row: [rows]."""

    @abstractmethod
    def score(self, values: Tensor) -> Tensor:
        """What this input adds to the score of each row: [rows]."""

    @abstractmethod
    def explain(self, values: Tensor) -> Explanation:
        """The score, divided among the places of the input."""

    def calibrate(self, batches: list[Tensor]) -> None:
        """Measure on held-back rows what the score needs, such as usual errors."""


class Sequential(Detector):
    """Has a `Sequence` for each series and each token input, and one autoencoder for the rest.

    The autoencoder has its default options. Losses and scores of the parts are added up.

    A signal that restates a text, such as its n-grams, is left out and has a share of 0: the text
    is read byte by byte already (docs/decisions/sequence-scores.md).
    """

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__(layout, config)
        series = [s for s in layout.signals if s.kind == "series"]
        self.series = nn.ModuleList(self.model_series(s) for s in series)
        self.tokens = nn.ModuleList(self.model_tokens(t) for t in layout.tokens)
        others = tuple(s for s in layout.signals if _is_other(s))
        rest = Layout(layout.numeric, layout.categories, others)
        self.rest = Autoencoder(rest, AutoencoderConfig()) if rest.features else None

    @abstractmethod
    def model_series(self, series: SignalInput) -> Sequence:
        """An untrained model of a series."""

    @abstractmethod
    def model_tokens(self, tokens: TokenInput) -> Sequence:
        """An untrained model of a token input."""

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        return require_steps(layout)

    def loss(self, batch: Batch) -> Tensor:
        losses = [part.loss(values) for part, values in self._pair_models(batch)]
        if self.rest is not None:
            losses.append(self.rest.loss(self._take_others(batch)))
        return torch.stack(losses).sum(0)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        rows = _ROWS if batch.numeric.device.type == "cpu" else _GPU_ROWS
        pieces = range(0, max(1, len(batch.numeric)), rows)
        return torch.cat([self._score_rows(batch.take(slice(at, at + rows))) for at in pieces])

    def _score_rows(self, batch: Batch) -> Tensor:
        scores = [part.score(values) for part, values in self._pair_models(batch)]
        if self.rest is not None:
            scores.append(self.rest.score(self._take_others(batch)))
        return torch.stack(scores).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        explained = [part.explain(values) for part, values in self._pair_models(batch)]
        if self.rest is None:
            none = batch.numeric.new_zeros(len(batch.numeric), 0)
            rest = Contributions(none, Batch(none, none.long()))
        else:
            rest = self.rest.contributions(self._take_others(batch))
        return self._merge(rest, explained)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Measure the usual errors on held-back rows. Raises Refusal if there are none."""
        if not sum(len(b.numeric) for b in batches):
            name = type(self).__name__
            raise Refusal(f"expected held-back rows to calibrate the {name} on, found none")
        for parts in zip(*(self._pair_models(b) for b in batches), strict=True):
            parts[0][0].calibrate([values for _, values in parts])
        if self.rest is not None:
            self.rest.calibrate([self._take_others(b) for b in batches])

    def _pair_models(self, batch: Batch) -> list[tuple[Sequence, Tensor]]:
        """Each model with its values: first the series, then the tokens."""
        batch.check(self.layout)
        pairs = zip(self.layout.signals, batch.signals, strict=True)
        series = [values for signal, values in pairs if signal.kind == "series"]
        models = (*self.series, *self.tokens)
        return list(zip(models, (*series, *batch.tokens), strict=True))

    def _take_others(self, batch: Batch) -> Batch:
        """The batch without series, tokens and what restates a text."""
        pairs = zip(self.layout.signals, batch.signals, strict=True)
        signals = tuple(values for signal, values in pairs if _is_other(signal))
        return Batch(batch.numeric, batch.codes, batch.label, signals)

    def _merge(self, rest: Contributions, explained: list[Explanation]) -> Contributions:
        """Contributions in the order of the layout's features."""
        flat = len(self.layout.numeric) + len(self.layout.categories)
        parts = iter(explained)
        others = iter(
            Explanation(share, places, expected)
            for share, places, expected in zip(
                rest.shares[:, flat:].unbind(1), rest.maps, rest.expected.signals, strict=True
            )
        )
        signals = [
            _explain_nothing(signal, rest.shares)
            if signal.restates
            else next(others if _is_other(signal) else parts)
            for signal in self.layout.signals
        ]
        tokens = list(parts)
        shares = [part.share[:, None] for part in (*signals, *tokens)]
        expected = rest.expected._replace(
            signals=tuple(part.expected for part in signals),
            tokens=tuple(part.expected for part in tokens),
        )
        maps = tuple(part.places for part in (*signals, *tokens))
        return Contributions(torch.cat([rest.shares[:, :flat], *shares], 1), expected, maps)


def _is_other(signal: SignalInput) -> bool:
    """Whether the autoencoder takes this signal, with the numbers and categories."""
    return signal.kind != "series" and signal.restates is None


def _explain_nothing(signal: SignalInput, like: Tensor) -> Explanation:
    """The explanation of a signal that adds nothing to any score."""
    zeros = like.new_zeros(len(like), *signal.shape)
    return Explanation(zeros.flatten(1).sum(1), zeros, zeros)


def require_steps(layout: Layout) -> str | None:
    """For `Detector.unfit`: the message if a layout has neither series nor tokens, else None."""
    series = [s for s in layout.signals if s.kind == "series"]
    if not series and not layout.tokens:
        return "expected a series (windows of rows), events or a text, found none"
    short = [s.name for s in series if s.shape[1] < 2]
    return f"expected series of 2 steps or more, found 1 in '{short[0]}'" if short else None


def require_only_series(layout: Layout) -> str | None:
    """For `Detector.unfit`: the message if a layout has anything but series, else None."""
    others = [*(n.name for n in layout.numeric), *(c.name for c in layout.categories)]
    others += [*(s.name for s in layout.signals if s.kind != "series")]
    others += [*(t.name for t in layout.tokens)]
    if others:
        return (
            f"expected series (windows of rows) alone, found '{others[0]}' beside them; give the "
            "other columns the role keep, and the window `alone: true`"
        )
    return require_steps(layout)
