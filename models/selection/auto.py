"""`detector: auto`: choose a detector by trying a few on a sample of the rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.detector import expect
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal
from models.scores.quality import measure_auroc
from models.selection.ranking import (
    LEAST_ANOMALIES,
    PLANTED,
    count_anomalies,
    measure_agreement,
    plant_anomalies,
)
from models.selection.standing import find_modality, find_standing
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions

AUTO = "auto"
# Held-back rows by which candidates are ranked: enough for the second digit of an AUROC.
HELD_BACK_ROWS = 5_000
# Candidates that are tried whatever the budget: of two, neither agrees with a majority.
_LEAST_TRIED = 3
# Labelled anomalies that a classifier needs. With fewer it learns them by heart, and only
# `stacked_devnet` is tried, which treats every other row as normal.
_CLASSIFIED = 50
_OF_SIGNALS = (
    *("hog_knn", "matrix_profile", "forecaster"),
    *("convolutional_autoencoder", "recurrent_autoencoder"),
)
# Where planted anomalies decide, a candidate must gain more than this number of standard deviations
# over the plantings on the documented detector; and the ensemble for rows of a table that may hold
# anomalies (docs/decisions/auto-choice.md).
_DOUBT = 2.0
_MIXED: dict[str, Any] = {
    "members": [{"name": "ecod"}, {"name": "isolation_forest"}, {"name": "knn", "locality": 0.0}]
}
# Most numbers that `knn` may store, rows times inputs. 5,000 rows of 4,000 inputs took 49 s on one
# of two busy cores.
_NEIGHBOUR_NUMBERS = 20_000_000


@dataclass(frozen=True)
class AutoConfig:
    """Options of `detector: auto`."""

    budget_seconds: float = 120.0  # no further candidate is started after this time
    rows: int = 20_000  # rows of the training days to learn from, drawn uniformly
    epochs: int = 10  # epochs of a candidate; the winner gets `training.epochs`

    def __post_init__(self) -> None:
        expect(self.budget_seconds > 0, self, "budget_seconds", "more than 0")
        expect(self.rows >= 100, self, "rows", "100 or more")
        expect(self.epochs >= 1, self, "epochs", "1 or more")


@dataclass(frozen=True)
class Candidate:
    """A detector to try, with its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Name and options as in YAML: `autoencoder`, `autoencoder (widths: [64, 32])`."""
        return f"{self.name} ({_format_yaml(self.options)[1:-1]})" if self.options else self.name


def _format_yaml(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_format_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_format_yaml, value)) + "]"
    return str(value)


@dataclass(frozen=True)
class CandidateResult:
    """How a candidate did."""

    candidate: str  # `Candidate.text`
    figure: float | None  # by `Choice.criterion`; None if it was not measured
    seconds: float  # of training and scoring
    note: str  # why it was not tried, else empty


class Scores(NamedTuple):
    """The scores of a candidate: of held-back rows and of each planting, float32 [rows] each."""

    usual: Tensor
    planted: tuple[Tensor, ...]


@dataclass(frozen=True)
class Choice:
    """The detector that was chosen, and why."""

    winner: Candidate
    criterion: str
    tried: tuple[CandidateResult, ...]

    def to_document(self) -> dict[str, Any]:
        """The choice as JSON values."""
        return {
            "winner": self.winner.text,
            "criterion": self.criterion,
            "tried": [asdict(one) for one in self.tried],
        }


def list_candidates(
    layout: Layout,
    anomalies: int = 0,
    normal: int = 0,
    judged: bool = True,
    rows: int = AutoConfig.rows,
) -> tuple[Candidate, ...]:
    """The detectors to try for a layout, in order.

    `anomalies` and `normal` are the numbers of labelled training rows among `rows`. `judged` says
    whether candidates can be measured: by labels of held-back rows, or because all rows are normal.
    First come detectors that learn from labels, then the documented detector, then the fastest. If
    nothing is measured, a few labelled anomalies decide alone, and a table without labels gets only
    detectors that tolerate a few anomalies among their rows.
    """
    chosen = []
    if anomalies >= _CLASSIFIED and normal >= anomalies:
        chosen.append(Candidate("classifier"))
    if anomalies >= LEAST_ANOMALIES:
        chosen.append(Candidate("stacked_devnet"))
        if not judged:
            return tuple(chosen)
    near = rows * Inputs(layout, embed=False).width <= _NEIGHBOUR_NUMBERS
    table = find_modality(layout) == "table"
    standing = find_standing(layout)
    chosen += [Candidate(standing)] if standing != "knn" else []
    chosen += [Candidate("knn")] if near else []
    chosen += [Candidate("gaussian")] if judged or not table else []
    chosen += [Candidate(name) for name in ("isolation_forest", "ecod", "pca")]
    if table and near:
        chosen.append(Candidate("ensemble", _MIXED))
    # For signals and sequences; those that do not fit are removed below.
    chosen += [Candidate(name) for name in _OF_SIGNALS] if not table else []
    if judged or not table:
        chosen += [Candidate("autoencoder"), Candidate("autoencoder", {"widths": [64, 32]})]
        chosen += [Candidate("variational_autoencoder"), Candidate("diffusion_time")]
    fitting = {c.text: c for c in chosen if CATALOG[c.name].unfit(layout) is None}
    return tuple(fitting.values())  # each once


def choose(
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    options: AutoConfig,
    training: TrainingOptions,
    on_progress: Callable[[Sequence[CandidateResult], int], None] = lambda tried, of: None,
) -> Choice:
    """Train the candidates on `rows` and choose the one that ranks the held-back rows best.

    - If `held_back` has enough labels, by AUROC.
    - Else, if all `rows` are labelled normal, by AUROC against planted anomalies
      (`models.selection.synthetic_anomalies`). Real anomalies may differ from these, so the
      documented detector (`models.selection.standing`) is chosen unless another is clearly better.
    - Else, for a table, by agreement: the candidate whose ranks are nearest to the mean ranks of
      all. For other columns the documented detector: nothing is known that could overrule it.

    Only candidates that learn from labels see those of `rows`. `training` is used with at most the
    epochs of `options`. `on_progress` is called before the first and after each candidate, with
    those that were tried and the number of all.

    Raises Refusal if there are no rows, or if no candidate can be trained.

    >>> from models.batch import Batch
    >>> from models.layout import Layout, NumericInput
    >>> from models.training.options import TrainingOptions
    >>> layout = Layout((NumericInput("bytes", "real"), NumericInput("packets", "real")), ())
    >>> numbers = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> rows = Batch(numbers, torch.zeros(500, 0, dtype=torch.int64))
    >>> choice = choose(layout, rows, rows.take(slice(200)), AutoConfig(), TrainingOptions())
    >>> choice.criterion
    'rank correlation with all candidates'
    >>> [result.candidate for result in choice.tried][:3]
    ['knn', 'isolation_forest', 'ecod']
    """
    if not len(rows.numeric) or not len(held_back.numeric):
        raise Refusal(
            f"expected rows to choose a detector by, found {len(rows.numeric):,} to learn from and "
            f"{len(held_back.numeric):,} held back: give more training days"
        )
    # `trim` leaves out the rows of highest loss, which would be the labelled anomalies.
    known = torch.zeros(0) if rows.label is None or training.trim else rows.label
    counts = int((known > 0.5).sum()), int((known <= 0.5).sum())
    training = replace(training, epochs=min(training.epochs, options.epochs))
    deadline = time.monotonic() + options.budget_seconds
    tried: list[CandidateResult] = []
    scores: dict[int, Scores] = {}
    clean = rows.label is not None and bool((rows.label <= 0.5).all())
    by_labels = count_anomalies(held_back) > 0
    planted = plant_anomalies(held_back, layout, training.seed) if clean and not by_labels else []
    judged = clean or by_labels
    chosen_from = list_candidates(layout, *counts, judged=judged, rows=len(rows.numeric))
    standing, table = find_standing(layout), find_modality(layout) == "table"
    on_progress(tried, len(chosen_from))
    for index, candidate in enumerate(chosen_from):
        note = ""
        if scores and not judged and not table:
            note = f"not tried: without labels nothing overrules {chosen_from[min(scores)].text}"
        elif len(scores) >= _LEAST_TRIED and time.monotonic() > deadline:
            note = "not tried: the budget was used up"
        if note:
            tried.append(CandidateResult(candidate.text, None, 0.0, note))
        else:
            result, own_scores = _try(candidate, layout, rows, held_back, planted, training)
            tried.append(result)
            if own_scores is not None:
                scores[index] = own_scores
        on_progress(tried, len(chosen_from))
    if not scores:
        notes = "; ".join(f"{one.candidate}: {one.note}" for one in tried)
        raise Refusal(f"expected a detector that can be trained on these rows, found none: {notes}")
    criterion, figures = _rank(held_back, scores)
    for index, figure in figures.items():
        tried[index] = replace(tried[index], figure=figure)
    winner = max(scores, key=lambda index: figures.get(index, 0.0))
    stands = next((i for i in scores if chosen_from[i].text == standing), None)
    if planted and stands is not None:
        criterion += f"; {standing} unless another is better by {_DOUBT:g} standard deviations"
        winner = pick_beyond_doubt(scores, stands)
    return Choice(chosen_from[winner], criterion, tuple(tried))


def _try(
    candidate: Candidate,
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    planted: list[Batch],
    training: TrainingOptions,
) -> tuple[CandidateResult, Scores | None]:
    """The scores of a trained candidate; None if it could not be trained."""
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
    scores = Scores(
        score_rows(detector, every), tuple(score_rows(detector, some) for some in planted)
    )
    return CandidateResult(candidate.text, None, time.monotonic() - started, ""), scores


def _keep_labelled(rows: Batch) -> Batch:
    assert rows.label is not None
    return rows.take(~rows.label.isnan())


def _rank(held_back: Batch, scores: dict[int, Scores]) -> tuple[str, dict[int, float]]:
    """The criterion, and the figure of each candidate."""
    anomalies, label = count_anomalies(held_back), held_back.label
    if anomalies and label is not None:
        normal, anomalous = (label <= 0.5).cpu(), (label > 0.5).cpu()
        figures = {
            i: measure_auroc(one.usual[normal], one.usual[anomalous]) for i, one in scores.items()
        }
        return f"AUROC by the labels of {anomalies:,} held-back anomalies", figures
    if all(one.planted for one in scores.values()):
        return PLANTED, {i: sum(_measure_aurocs(s)) / len(s.planted) for i, s in scores.items()}
    if len(scores) == 1:
        return "the only candidate for these labels and rows", {}
    agreement = measure_agreement([one.usual for one in scores.values()])
    return "rank correlation with all candidates", dict(zip(scores, agreement, strict=True))


def pick_beyond_doubt(scores: dict[int, Scores], standing: int) -> int:
    """The candidate with the largest gain on `standing`, less _DOUBT standard deviations of it.

    `standing` itself, with a gain of 0, if no other is better beyond doubt.
    """
    known = torch.tensor(_measure_aurocs(scores[standing]))
    gains = {i: torch.tensor(_measure_aurocs(one)) - known for i, one in scores.items()}
    return max(gains, key=lambda i: float(gains[i].mean() - _DOUBT * gains[i].std()))


def _measure_aurocs(scores: Scores) -> list[float]:
    """The AUROC against each planting."""
    return [measure_auroc(scores.usual, odd) for odd in scores.planted]
