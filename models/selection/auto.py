"""`detector: auto`: which detector, by trying a few on a sample of the rows."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.batch import Batch, Layout
from models.detectors.catalog import CATALOG
from models.detectors.detector import expect
from models.refusal import Refusal
from models.selection.ranking import (
    LEAST_ANOMALIES,
    PLANTED,
    auroc,
    count_anomalies,
    measure_agreement,
    plant_anomalies,
)
from models.training.loop import learn, scored
from models.training.options import TrainingOptions

AUTO = "auto"
# Held-back rows that candidates are ranked by: enough for the second digit of an AUROC.
HELD_BACK_ROWS = 5_000
# Candidates that are tried whatever the budget: two cannot outvote each other.
_LEAST_TRIED = 3
# A classifier with fewer anomalies knows them by heart: below, a deviation network learns from
# them, to which every other row is normal.
_CLASSIFIED = 50
_OF_SIGNALS = (
    *("hog_knn", "matrix_profile", "forecaster"),
    *("convolutional_autoencoder", "recurrent_autoencoder"),
)
# What stands where all rows are normal, unless another is better beyond doubt: the best on average
# (docs/quality.md), while planted anomalies take a network's side where it is 0.15 worse.
_STANDING = "knn"
# Standard deviations over the plantings that a mean gain has to be. On twelve ADBench sets, one
# seed, the choice was 0.023 below `knn` at 0, the same as it at 1, 0.001 above at 1.5 and 2.
_DOUBT = 2.0
# Rows that may hold anomalies: three that look at each column, at all of them by cuts, and at
# places. On 16 ADBench sets, two seeds, 0.860 in the mean, its best member 0.847. The locality of
# `knn` takes a few anomalies that lie together for a place where rows are dense (0.789, and 0.820
# without it).
_MIXED: dict[str, Any] = {
    "members": [{"name": "ecod"}, {"name": "isolation_forest"}, {"name": "knn", "locality": 0.0}]
}
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
        return f"{self.name} ({_format_yaml(self.options)[1:-1]})" if self.options else self.name


def _format_yaml(value: Any) -> str:
    """As YAML has it in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format_yaml, value)) + "]"
    return str(value)


@dataclass(frozen=True)
class CandidateResult:
    """A candidate and how it fared."""

    candidate: str
    figure: float | None  # by the choice's criterion; None where it was not tried, or is not known
    seconds: float
    note: str  # why it was not tried; empty otherwise


class Scores(NamedTuple):
    """What a candidate gave to held-back rows and to each kind of planted ones: [rows] each."""

    usual: Tensor
    planted: tuple[Tensor, ...]


@dataclass(frozen=True)
class Choice:
    """The winner and why."""

    winner: Candidate
    criterion: str
    tried: tuple[CandidateResult, ...]

    def to_document(self) -> dict[str, Any]:
        return {
            "winner": self.winner.text,
            "criterion": self.criterion,
            "tried": [asdict(one) for one in self.tried],
        }


def list_candidates(
    layout: Layout, anomalies: int = 0, normal: int = 0, judged: bool = True
) -> tuple[Candidate, ...]:
    """What to try for such columns, and so many labels of both kinds to learn from.

    Those that learn from labels first, then what stands, then the quickest. Where nothing can judge
    (`judged`: labels held back, or rows that are normal) a few labels decide by themselves; and a
    table without any is left to detectors that a few anomalies do not lead astray.
    """
    found = []
    if anomalies >= _CLASSIFIED and normal >= anomalies:
        found.append(Candidate("classifier"))
    if anomalies >= LEAST_ANOMALIES:
        found.append(Candidate("stacked_devnet"))
        if not judged:
            return tuple(found)
    numbers = len(layout.numeric) + sum(signal.width for signal in layout.signals)
    near = numbers <= _NEIGHBOUR_INPUTS
    table = not layout.signals and not layout.tokens
    found += [Candidate("knn")] if near else []
    found += [Candidate("isolation_forest"), Candidate("ecod"), Candidate("pca")]
    if table and near:
        found.append(Candidate("ensemble", _MIXED))
    # Of pictures and of rows with an order in them; each fits some of these only.
    found += [Candidate(name) for name in _OF_SIGNALS] if not table else []
    if judged or not table:
        found += [Candidate("autoencoder"), Candidate("autoencoder", {"widths": [64, 32]})]
        found += [Candidate("variational_autoencoder"), Candidate("diffusion_time")]
    return tuple(c for c in found if CATALOG[c.name].unfit(layout) is None)


def choose(
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    options: AutoConfig,
    training: TrainingOptions,
    on_candidate: Callable[[CandidateResult], None] = lambda tried: None,
) -> Choice:
    """Train the candidates on the rows, and take the one that ranks the held-back rows best.

    By AUROC where `held_back` has enough labels. Else, where all of `rows` are labelled normal, by
    AUROC against planted anomalies (`models.selection.synthetic_anomalies`), and where that is not
    known by agreement: the one whose ranks are nearest to the mean rank of all. Labels of `rows`
    reach only candidates that learn from labels. Planted anomalies are not those that will come: of
    a table `knn` stands unless another gains more than _DOUBT deviations over the plantings on it.

    `training` is cut to the epochs of the options.

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
    training = replace(training, epochs=min(training.epochs, options.epochs))
    deadline = time.monotonic() + options.budget_seconds
    tried: list[CandidateResult] = []
    scores: dict[int, Scores] = {}
    clean = rows.label is not None and bool((rows.label <= 0.5).all())
    by_labels = count_anomalies(held_back) > 0
    planted = plant_anomalies(held_back, layout, training.seed) if clean and not by_labels else []
    chosen_from = list_candidates(layout, *counts, judged=clean or by_labels)
    for index, candidate in enumerate(chosen_from):
        if len(scores) >= _LEAST_TRIED and time.monotonic() > deadline:
            tried.append(
                CandidateResult(candidate.text, None, 0.0, "not tried: the budget was used up")
            )
        else:
            result, found = _try(candidate, layout, rows, held_back, planted, training)
            tried.append(result)
            if found is not None:
                scores[index] = found
        on_candidate(tried[-1])
    if not scores:
        notes = "; ".join(f"{one.candidate}: {one.note}" for one in tried)
        raise Refusal(f"expected a detector that can be trained on these rows, found none: {notes}")
    criterion, figures = _rank(held_back, scores)
    for index, figure in figures.items():
        tried[index] = replace(tried[index], figure=figure)
    winner = max(scores, key=lambda index: figures.get(index, 0.0))
    standing = next((i for i in scores if chosen_from[i].text == _STANDING), None)
    if planted and standing is not None and not (layout.signals or layout.tokens):
        criterion += f"; {_STANDING} stands unless another gains on it beyond {_DOUBT:g} deviations"
        winner = pick_beyond_doubt(scores, standing)
    return Choice(chosen_from[winner], criterion, tuple(tried))


def _try(
    candidate: Candidate,
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    planted: list[Batch],
    training: TrainingOptions,
) -> tuple[CandidateResult, Scores | None]:
    """The candidate's scores of held-back and planted rows; None where it was refused."""
    started = time.monotonic()
    labels = CATALOG[candidate.name].labels
    every = held_back._replace(label=None)
    if labels == "none":
        rows, held_back = rows._replace(label=None), every
    elif labels == "all":
        rows, held_back = _keep_labelled(rows), _keep_labelled(held_back)
    torch.manual_seed(training.seed)
    try:
        detector = CATALOG.build(candidate.name, layout, candidate.options)
        learn(detector, rows, held_back, training)
    except Refusal as refusal:
        return CandidateResult(candidate.text, None, time.monotonic() - started, str(refusal)), None
    scores = Scores(scored(detector, every), tuple(scored(detector, some) for some in planted))
    return CandidateResult(candidate.text, None, time.monotonic() - started, ""), scores


def _keep_labelled(rows: Batch) -> Batch:
    assert rows.label is not None
    return rows.take(~rows.label.isnan())


def _rank(held_back: Batch, scores: dict[int, Scores]) -> tuple[str, dict[int, float]]:
    """The criterion, and the figure of each candidate by it."""
    anomalies, label = count_anomalies(held_back), held_back.label
    if anomalies and label is not None:
        normal, anomalous = (label <= 0.5).cpu(), (label > 0.5).cpu()
        figures = {i: auroc(one.usual[normal], one.usual[anomalous]) for i, one in scores.items()}
        return f"AUROC by the labels of {anomalies:,} held-back anomalies", figures
    if all(one.planted for one in scores.values()):
        return PLANTED, {i: sum(_measure_aurocs(s)) / len(s.planted) for i, s in scores.items()}
    if len(scores) == 1:
        return "the only candidate for these labels and rows", {}
    found = measure_agreement([one.usual for one in scores.values()])
    return "rank correlation with all candidates", dict(zip(scores, found, strict=True))


def pick_beyond_doubt(scores: dict[int, Scores], standing: int) -> int:
    """The candidate whose gain on the standing one is the most, less what may be doubted of it:
    the standing one itself where no other gains beyond doubt."""
    known = torch.tensor(_measure_aurocs(scores[standing]))
    gains = {i: torch.tensor(_measure_aurocs(one)) - known for i, one in scores.items()}
    return max(gains, key=lambda i: float(gains[i].mean() - _DOUBT * gains[i].std()))


def _measure_aurocs(scores: Scores) -> list[float]:
    """Against each planting."""
    return [auroc(scores.usual, odd) for odd in scores.planted]
