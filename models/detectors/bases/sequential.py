"""Base of detectors that go through series, events and texts step by step."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions, Layout, SignalInput, TokenInput
from models.detectors.autoencoder import Autoencoder, AutoencoderConfig
from models.detectors.detector import Detector
from models.refusal import Refusal

# Rows that are scored at once: what a cell says of 1,024 texts is 70 MB a block of 64 bytes.
_ROWS = 1024


class Explanation(NamedTuple):
    """What one input of a batch adds to the score, and where."""

    share: Tensor  # float32 [rows]
    places: Tensor  # float32, as the input in shape
    expected: Tensor  # as the input in shape and type


class Sequence(nn.Module, ABC):
    """What a detector has learned of one series or one token input."""

    @abstractmethod
    def loss(self, values: Tensor) -> Tensor:
        """Training loss of each row: [rows]."""

    @abstractmethod
    def score(self, values: Tensor) -> Tensor:
        """What the input adds to each row's score: [rows]."""

    @abstractmethod
    def explain(self, values: Tensor) -> Explanation:
        """The score once more, with its places."""

    def calibrate(self, batches: list[Tensor]) -> None:
        """Learn from held-back rows what is usual, where the score needs to know."""


class Sequential(Detector):
    """Each series and each token input is judged by a `Sequence` of its own, all other columns
    together by an `autoencoder` with its defaults; losses and scores add up.

    What restates a text that is read byte by byte is left out, and has no share: beside 256 numbers
    of its n-grams the surprise of a text was drowned (AUROC 0.40 on sms_spam).
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
        """A fresh model of a series."""

    @abstractmethod
    def model_tokens(self, tokens: TokenInput) -> Sequence:
        """A fresh model of a token input."""

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
        pieces = range(0, max(1, len(batch.numeric)), _ROWS)
        return torch.cat([self._score_rows(batch.take(slice(at, at + _ROWS))) for at in pieces])

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
        """Learn from held-back rows how large errors usually are."""
        if not sum(len(b.numeric) for b in batches):
            name = type(self).__name__
            raise Refusal(f"expected held-back rows to calibrate the {name} on, found none")
        for parts in zip(*(self._pair_models(b) for b in batches), strict=True):
            parts[0][0].calibrate([values for _, values in parts])
        if self.rest is not None:
            self.rest.calibrate([self._take_others(b) for b in batches])

    def _pair_models(self, batch: Batch) -> list[tuple[Sequence, Tensor]]:
        """The models and what each is to judge: first the series, then the tokens."""
        self.layout.check(batch)
        pairs = zip(self.layout.signals, batch.signals, strict=True)
        series = [signal for given, signal in pairs if given.kind == "series"]
        models = (*self.series, *self.tokens)
        return list(zip(models, (*series, *batch.tokens), strict=True))

    def _take_others(self, batch: Batch) -> Batch:
        """What is neither a series nor tokens."""
        pairs = zip(self.layout.signals, batch.signals, strict=True)
        signals = tuple(signal for given, signal in pairs if _is_other(given))
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
            _explain_nothing(given, rest.shares)
            if given.restates
            else next(others if _is_other(given) else parts)
            for given in self.layout.signals
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
    """Whether a signal is judged with the numbers and categories."""
    return signal.kind != "series" and signal.restates is None


def _explain_nothing(signal: SignalInput, like: Tensor) -> Explanation:
    """Of a signal that adds nothing to any row."""
    zeros = like.new_zeros(len(like), *signal.shape)
    return Explanation(zeros.flatten(1).sum(1), zeros, zeros)


def require_steps(layout: Layout) -> str | None:
    """As `Detector.unfit`, for detectors that need one series or token input at least."""
    series = [s for s in layout.signals if s.kind == "series"]
    if not series and not layout.tokens:
        return "expected a series (windows of rows), events or a text, found none"
    short = [s.name for s in series if s.shape[1] < 2]
    return f"expected series of 2 steps or more, found 1 in '{short[0]}'" if short else None


def require_only_series(layout: Layout) -> str | None:
    """As `Detector.unfit`, for detectors that know nothing but series."""
    others = [*(n.name for n in layout.numeric), *(c.name for c in layout.categories)]
    others += [*(s.name for s in layout.signals if s.kind != "series")]
    others += [*(t.name for t in layout.tokens)]
    if others:
        return (
            f"expected series (windows of rows) alone, found '{others[0]}' beside them; give other "
            "columns the role keep, and a window over its channels `alone: true`"
        )
    return require_steps(layout)
