"""`detector: auto`: which detector, by trying a few on a sample of the rows."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import catalog
from models.detector import Batch, Detector, Layout, expect
from models.learning import TrainingOptions, learn, scored
from models.planted import KINDS
from models.refusal import Refusal

AUTO = "auto"
# Fewer labelled anomalies held back rank detectors by chance: with 5 and many normal rows the
# deviation of an AUROC of 0.9 is 0.09 (Hanley and McNeil, Radiology 1982, equation 2).
LEAST_ANOMALIES = 5
# A classifier with fewer anomalies knows them by heart: below, a deviation network learns from
# them, to which every other row is normal.
_CLASSIFIED = 50
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
    auroc: float | None  # None where it was not tried
    seconds: float
    note: str  # why it was not tried; empty otherwise


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
    if numbers <= _NEIGHBOUR_INPUTS:
        found.append(Candidate("knn"))
    found += [Candidate("pca"), Candidate("isolation_forest"), Candidate("ecod")]
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
    """Train the candidates on the rows, and take the one that ranks best.

    By labels where `held_back` has at least LEAST_ANOMALIES of them: AUROC. Else by AUROC of the
    held-back rows against anomalies planted in them (`models.planted`). Labels of `rows` reach
    only candidates that learn from labels. Raises Refusal where there are no rows, and where no
    candidate can be trained.
    """
    if not len(rows.numeric) or not len(held_back.numeric):
        raise Refusal(
            f"expected rows to choose a detector by, found {len(rows.numeric):,} to learn from and "
            f"{len(held_back.numeric):,} held back: give more training days"
        )
    judge = Judge(layout, held_back, training.seed)
    # The rows that are trimmed, those of highest loss, would be the labelled anomalies.
    known = torch.zeros(0) if rows.label is None or training.trim else rows.label
    counts = int((known > 0.5).sum()), int((known <= 0.5).sum())
    deadline = time.monotonic() + options.budget_seconds
    best: tuple[float, Candidate] | None = None
    tried = []
    for candidate in candidates(layout, *counts):
        if best is not None and time.monotonic() > deadline:
            result = Tried(candidate.text, None, 0.0, "not tried: the budget was used up")
        else:
            result = _try(candidate, layout, rows, held_back, judge, training)
        tried.append(result)
        on_candidate(result)
        if result.auroc is not None and (best is None or result.auroc > best[0]):
            best = result.auroc, candidate
    if best is None:
        notes = "; ".join(f"{one.candidate}: {one.note}" for one in tried)
        raise Refusal(f"expected a detector that can be trained on these rows, found none: {notes}")
    return Choice(best[1], judge.criterion, tuple(tried))


def _try(
    candidate: Candidate,
    layout: Layout,
    rows: Batch,
    held_back: Batch,
    judge: "Judge",
    training: TrainingOptions,
) -> Tried:
    started = time.monotonic()
    labels = catalog.CATALOG[candidate.name].labels
    if labels == "none":
        rows, held_back = rows._replace(label=None), held_back._replace(label=None)
    elif labels == "all":
        rows, held_back = _labelled(rows), _labelled(held_back)
    torch.manual_seed(training.seed)
    try:
        detector = catalog.build(candidate.name, layout, candidate.options)
        learn(detector, rows, held_back, training)
        auroc = judge(detector)
    except Refusal as refusal:
        return Tried(candidate.text, None, time.monotonic() - started, str(refusal))
    return Tried(candidate.text, auroc, time.monotonic() - started, "")


def _labelled(rows: Batch) -> Batch:
    assert rows.label is not None
    return rows.take(~rows.label.isnan())


class Judge:
    """How well a detector ranks held-back rows: 0 to 1."""

    def __init__(self, layout: Layout, held_back: Batch, seed: int) -> None:
        self.parts: list[Batch]
        label = held_back.label
        anomalies = 0 if label is None else int((label > 0.5).sum())
        normal = 0 if label is None else int((label <= 0.5).sum())
        if label is not None and anomalies >= LEAST_ANOMALIES and normal >= LEAST_ANOMALIES:
            self.usual = held_back.take(label <= 0.5)
            self.parts = [held_back.take(label > 0.5)]
            self.criterion = f"AUROC by the labels of {anomalies:,} of the held-back anomalies"
            return
        self.usual = held_back._replace(label=None)
        device = held_back.numeric.device
        # Drawn on the CPU: the same anomalies whatever the device.
        generator, usual = torch.Generator().manual_seed(seed), self.usual.to("cpu")
        self.parts = [make(usual, layout, generator).to(device) for make in KINDS.values()]
        self.criterion = f"mean AUROC against planted anomalies: {', '.join(KINDS)}"

    def __call__(self, detector: Detector) -> float:
        usual = scored(detector, self.usual)
        return float(np.mean([auroc(usual, scored(detector, part)) for part in self.parts]))


def auroc(normal: Tensor, anomalous: Tensor) -> float:
    """Share of pairs in which the anomaly scores higher; ties count half. [rows] each."""
    ordered = normal.sort().values
    below = torch.searchsorted(ordered, anomalous, right=False)
    at_most = torch.searchsorted(ordered, anomalous, right=True)
    return float((below + at_most).double().mean()) / 2 / len(normal)
