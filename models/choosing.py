"""`detector: auto`: which detector, by trying a few on a sample of the rows."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models import catalog
from models.detector import Batch, Layout, expect
from models.judging import (
    LEAST_ANOMALIES,
    PLANTED,
    agreement,
    anomalies_in,
    auroc,
    planted_in,
)
from models.learning import TrainingOptions, learn, scored
from models.refusal import Refusal

AUTO = "auto"
# Candidates that are tried whatever the budget: two cannot outvote each other.
_LEAST_TRIED = 3
# A classifier with fewer anomalies knows them by heart: below, a deviation network learns from
# them, to which every other row is normal.
_CLASSIFIED = 50
_OF_SIGNALS = (
    *("hog_knn", "matrix_profile", "forecaster"),
    *("convolutional_autoencoder", "recurrent_autoencoder"),
)
# The distances of k nearest neighbours and their bank grow with rows times inputs.
_NEIGHBOUR_INPUTS = 1_000


@dataclass(frozen=True)
class AutoConfig:
    """Options of `detector: auto`."""

    budget_seconds: float = 120.0  # no further candidate is tried after so long
    rows: int = 20_000  # of the training days, drawn uniformly, that candidates learn from
    epochs: int = 10  # of a candidate that learns by gradient; the winner gets `training.epochs`

    def __post_init__(self) -> None:
        expect(self.budget_seconds > 0, self, "budget_seconds", "more than 0")
        expect(self.rows >= 100, self, "rows", "100 or more")
        expect(self.epochs >= 1, self, "epochs", "1 or more")


@dataclass(frozen=True)
class Candidate:
    """A detector of the catalogue with options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """As in YAML: `autoencoder`, `autoencoder (widths: [64, 32])`."""
        options = ", ".join(f"{key}: {value}" for key, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name


@dataclass(frozen=True)
class Tried:
    """A candidate and how it fared."""

    candidate: str
    figure: float | None  # by the choice's criterion; None where it was not tried, or is not known
    seconds: float
    note: str  # why it was not tried; empty otherwise


class _Scores(NamedTuple):
    """What a candidate gave to held-back rows and to each kind of planted ones: [rows] each."""

    usual: Tensor
    planted: tuple[Tensor, ...]


@dataclass(frozen=True)
class Choice:
    """The winner and why."""

    winner: Candidate
    criterion: str
    tried: tuple[Tried, ...]

    def to_document(self) -> dict[str, Any]:
        return {
            "winner": self.winner.text,
            "criterion": self.criterion,
            "tried": [asdict(one) for one in self.tried],
        }


def candidates(layout: Layout, anomalies: int = 0, normal: int = 0) -> tuple[Candidate, ...]:
    """What to try for such columns, and so many labels of both kinds: those that learn from labels
    first, then the quickest."""
    found = []
    if anomalies >= _CLASSIFIED and normal >= anomalies:
        found.append(Candidate("classifier"))
    if anomalies >= LEAST_ANOMALIES:
        found.append(Candidate("devnet"))
    numbers = len(layout.numeric) + sum(signal.width for signal in layout.signals)
    found += [Candidate("isolation_forest"), Candidate("ecod"), Candidate("pca")]
    if numbers <= _NEIGHBOUR_INPUTS:
        found.append(Candidate("knn"))
    # Of pictures and of rows with an order in them; each fits some of these only.
    found += [Candidate(name) for name in _OF_SIGNALS] if layout.signals or layout.tokens else []
    found += [Candidate("autoencoder"), Candidate("autoencoder", {"widths": [64, 32]})]
    found += [Candidate("variational_autoencoder"), Candidate("diffusion_time")]
    return tuple(c for c in found if catalog.CATALOG[c.name].unfit(layout) is None)


def choose(
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    options: AutoConfig,
    training: TrainingOptions,
    on_candidate: Callable[[Tried], None] = lambda tried: None,
) -> Choice:
    """Train the candidates on the rows, and take the one that ranks the held-back rows best.

    By AUROC where `held_back` has enough labels. Else, where all of `rows` are labelled normal, by
    AUROC against planted anomalies (`models.planted`), and where that is not known by agreement:
    the one whose ranks are nearest to the mean rank of all. Labels of `rows` reach only candidates
    that learn from labels.

    Measured on ADBench sets (`tests.quality.choosing`), AUROC below that of the best candidate:
    trained on normal rows, 0.02 by planted anomalies and 0.05 by agreement; on all rows, with 2% to
    35% of anomalies among them, 0.11 and 0.09. A detector that learns the anomalies too is the one
    that sees the planted ones best. A candidate drawn by chance is 0.06 and 0.14 below the best.

    Raises Refusal where there are no rows, and where no candidate can be trained.
    """
    if not len(rows.numeric) or not len(held_back.numeric):
        raise Refusal(
            f"expected rows to choose a detector by, found {len(rows.numeric):,} to learn from and "
            f"{len(held_back.numeric):,} held back: give more training days"
        )
    # The rows that are trimmed, those of highest loss, would be the labelled anomalies.
    known = torch.zeros(0) if rows.label is None or training.trim else rows.label
    counts = int((known > 0.5).sum()), int((known <= 0.5).sum())
    deadline = time.monotonic() + options.budget_seconds
    tried: list[Tried] = []
    scores: dict[int, _Scores] = {}
    clean = rows.label is not None and bool((rows.label <= 0.5).all())
    by_labels = anomalies_in(held_back) > 0
    planted = planted_in(held_back, layout, training.seed) if clean and not by_labels else []
    chosen_from = candidates(layout, *counts)
    for index, candidate in enumerate(chosen_from):
        if len(scores) >= _LEAST_TRIED and time.monotonic() > deadline:
            tried.append(Tried(candidate.text, None, 0.0, "not tried: the budget was used up"))
        else:
            result, found = _try(candidate, layout, rows, held_back, planted, training)
            tried.append(result)
            if found is not None:
                scores[index] = found
        on_candidate(tried[-1])
    if not scores:
        notes = "; ".join(f"{one.candidate}: {one.note}" for one in tried)
        raise Refusal(f"expected a detector that can be trained on these rows, found none: {notes}")
    criterion, figures = _judged(held_back, scores)
    for index, figure in figures.items():
        tried[index] = replace(tried[index], figure=figure)
    winner = max(figures, key=lambda index: figures[index])
    return Choice(chosen_from[winner], criterion, tuple(tried))


def _try(
    candidate: Candidate,
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    planted: list[Batch],
    training: TrainingOptions,
) -> tuple[Tried, _Scores | None]:
    """The candidate's scores of held-back and planted rows; None where it was refused."""
    started = time.monotonic()
    labels = catalog.CATALOG[candidate.name].labels
    every = held_back._replace(label=None)
    if labels == "none":
        rows, held_back = rows._replace(label=None), every
    elif labels == "all":
        rows, held_back = _labelled(rows), _labelled(held_back)
    torch.manual_seed(training.seed)
    try:
        detector = catalog.build(candidate.name, layout, candidate.options)
        learn(detector, rows, held_back, training)
    except Refusal as refusal:
        return Tried(candidate.text, None, time.monotonic() - started, str(refusal)), None
    scores = _Scores(scored(detector, every), tuple(scored(detector, some) for some in planted))
    return Tried(candidate.text, None, time.monotonic() - started, ""), scores


def _labelled(rows: Batch) -> Batch:
    assert rows.label is not None
    return rows.take(~rows.label.isnan())


def _judged(held_back: Batch, scores: dict[int, _Scores]) -> tuple[str, dict[int, float]]:
    """The criterion, and the figure of each candidate by it."""
    anomalies, label = anomalies_in(held_back), held_back.label
    if anomalies and label is not None:
        normal, anomalous = (label <= 0.5).cpu(), (label > 0.5).cpu()
        figures = {i: auroc(one.usual[normal], one.usual[anomalous]) for i, one in scores.items()}
        return f"AUROC by the labels of {anomalies:,} held-back anomalies", figures
    if all(one.planted for one in scores.values()):
        means = {
            i: sum(auroc(one.usual, odd) for odd in one.planted) / len(one.planted)
            for i, one in scores.items()
        }
        return PLANTED, means
    found = agreement([one.usual for one in scores.values()])
    return "rank correlation with all candidates", dict(zip(scores, found, strict=True))
