"""Scoring a day: what one actor does with one split, exactly once."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from cluster import judge
from cluster.intake import Admission, Books, Intake, Lot, SetAside
from cluster.lake import schemas, shard
from cluster.lake.journal import Journal
from cluster.lake.reading import UnreadableFile
from cluster.lake.registry import Registry
from cluster.lake.snapshot import Split
from cluster.lake.store import ChangedSinceSnapshot, Store
from cluster.resources import ActorPlan, plan_actors
from cluster.stages import Stages
from cluster.stream import SplitWorker, stream
from models.bundle import open_bundle
from models.columns import Roles
from models.encoder import Extracted
from models.score_histogram import ScoreHistogram

# A split that was begun this often and never finished goes to the quarantine: a node may well be
# lost twice in a night under the same split, four times points to the split.
ATTEMPTS = 4

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MOST_HOURS = 100_000  # of a table that counts each hour

FLAGS, SCORES, QUARANTINE, RUNS, REGISTRY = "flags", "scores", "quarantine", "_runs", "registry"


@dataclass(frozen=True)
class ScoringJob:
    """All that an actor needs to know of a run, as plain values."""

    run_id: str
    input_uri: str
    output_uri: str
    schema: pa.Schema  # of the input
    roles: Roles
    filter: str | None
    bundle: str
    threshold: float
    top_reasons: int
    all_scores: bool


def score(
    job: ScoringJob, day: str, splits: Sequence[Split], plan: ActorPlan | None = None
) -> Iterator[dict[str, Any]]:
    """Score the splits over Ray Data; yields their receipts, in any order."""
    yield from stream([(day, s) for s in splits], Scorer, (job,), plan or plan_actors())


class Scorer(SplitWorker):
    """Reads, scores and explains splits; keeps the flags in one shard a split."""

    def __init__(self, plan: ActorPlan, job: ScoringJob) -> None:
        super().__init__(plan)
        output = Store.open(job.output_uri)
        bundle = open_bundle(Registry(output.child(REGISTRY)).files(job.bundle), job.bundle)
        self.job, self.output = job, output
        self.encoder = bundle.encoder.to(self.device).eval()
        self.detector = bundle.detector.to(self.device).eval()
        self.severity = bundle.severity
        self.journal = Journal(output.child(RUNS), job.run_id)
        self.intake = self._intake()

    def _intake(self) -> Intake:
        """Id and time of all rows; other columns only of flagged rows, unless a table of every
        row's score, or the label, asks for them."""
        job, roles = self.job, self.job.roles
        carried = tuple(filter(None, [roles.label, roles.kind]))
        time = (roles.time,) if roles.time else ()
        if job.all_scores:
            carried = (*roles.id, *time, *roles.entity, *carried)
        return Intake(job.input_uri, self.encoder, roles, job.filter, carried, time)

    def answer(self, day: str, split: Split) -> dict[str, Any]:
        attempt = self.journal.begin_attempt(split.id, ATTEMPTS)
        if attempt is None:
            message = f"the split stopped its actor {ATTEMPTS} times"
            receipt = self._refused(day, split, "stops_the_scorer", message, ATTEMPTS + 1)
        else:
            receipt = self._score(day, split, attempt)
        return self.journal.record(split.id, receipt)

    def _score(self, day: str, split: Split, attempt: int) -> dict[str, Any]:
        stages, books, tally = Stages(), Books(), Tally()
        found = _Found()
        try:
            with self.intake.open(split, books, stages) as admission:
                for lot in admission.lots():
                    self._judge(lot, found, tally, stages)
                tally.close(admission, found, self.job.roles, stages)
                flags = self._flags(split, admission, found, stages)
        except (UnreadableFile, ChangedSinceSnapshot) as error:
            rule = getattr(error, "rule", "changed")
            return self._refused(day, split, rule, str(error), attempt)
        name = f"{self.job.run_id}-{split.id}-{attempt}"
        receipt = {
            "split": split.id,
            "file": split.key,
            "rows": books.rows,
            "filtered": books.filtered,
            "scored": books.good,
            "flagged": len(found.numbers),
            "quarantined": len(books.set_aside),
            "rules": _rules(split.key, books.set_aside),
            "keys": books.keys.to_document(),
            "attempt": attempt,
            **tally.to_document(),
        }
        with stages("write"):
            receipt["shards"] = self._write(FLAGS, day, name, flags)
            receipt["score_shards"] = self._write(SCORES, day, name, found.every)
            receipt["quarantine_shards"] = self._quarantine(day, name, split.key, books.set_aside)
            labelled = f"{RUNS}/{self.job.run_id}/labelled"
            receipt["labelled"] = self._write(labelled, day, name, found.labelled)
        receipt["stages"] = stages.to_document()
        receipt["seconds"] = round(sum(stages.seconds.values()), 3)
        return receipt

    def _judge(self, lot: Lot, found: "_Found", tally: "Tally", stages: Stages) -> None:
        """Score a lot, and keep what is to be kept of it."""
        with stages("score"):
            scored = judge.scores(self.encoder, {"": self.detector}, lot.extracted, self.device)
        with stages("filter"):
            scores = scored[""]
            tally.add(scores)
            flagged = np.flatnonzero(scores > self.job.threshold)
            if len(flagged):
                kept = lot.extracted.values[flagged], lot.extracted.codes[flagged]
                found.add(lot.numbers[flagged], scores[flagged], *kept)
            if self.job.all_scores:
                found.every.append(self._scores(lot, scores))
            if self.job.roles.label:
                found.labelled.append(labelled_scores(lot, {"score": scores}, self.job.roles))

    def _flags(
        self, split: Split, admission: Admission, found: "_Found", stages: Stages
    ) -> list[pa.Table]:
        """The flagged rows, with the columns that only they need, and their reasons: one table,
        or none."""
        if not len(found.numbers):
            return []
        job = self.job
        with stages("read"):
            rows = admission.take(job.roles.flagged, found.numbers)
        with stages("reasons"):
            reasons = judge.reasons(
                self.encoder,
                self.detector,
                found.extracted,
                job.roles,
                job.top_reasons,
                self.device,
            )
        schema = schemas.flags(job.schema, job.roles)
        with stages("write"):
            scores = found.scores
            count = len(scores)
            columns = [
                *schemas.conform(rows.combine_chunks(), schema, job.roles.flagged),
                pa.array(scores, pa.float32()),
                pa.array(self.severity(scores), pa.float32()),
                pa.array(np.full(count, job.threshold, np.float32)),
                reasons,
                pa.array(self._anomaly_ids(split, rows, found.numbers)),
                pa.repeat(job.bundle, count),
                pa.repeat(job.run_id, count),
            ]
            return [pa.table(columns, schema=schema)]

    def _anomaly_ids(self, split: Split, rows: pa.Table, numbers: np.ndarray) -> list[str]:
        """The same for a row and a model, whenever it is scored: by the id, else by its place."""
        if self.job.roles.id:
            names = self.job.roles.id
            keys = zip(*(rows.column(n).to_pylist() for n in names), strict=True)
        else:
            keys = zip([split.key] * len(numbers), numbers.tolist(), strict=True)
        return [
            hashlib.sha256(repr((self.job.bundle, *key)).encode()).hexdigest()[:20] for key in keys
        ]

    def _scores(self, lot: Lot, scores: np.ndarray) -> pa.Table:
        schema = schemas.scores(self.job.schema, self.job.roles)
        names = tuple(n for n in schema.names if n not in ("score", "run_id"))
        columns = [
            *schemas.conform(lot.rows, schema, names),
            pa.array(scores, pa.float32()),
            pa.array([self.job.run_id] * len(scores)),
        ]
        return pa.table(columns, schema=schema)

    def _write(self, table: str, day: str, name: str, parts: list[pa.Table]) -> list[Any]:
        if not parts:
            return []
        whole = pa.concat_tables(parts)
        key = shard.key(day, name)
        return [shard.write(self.output.child(table), key, whole).to_document()]

    def _quarantine(self, day: str, name: str, file: str, aside: list[SetAside]) -> list[Any]:
        if not aside:
            return []
        columns = {
            "file": [file] * len(aside),
            "row": [a.row for a in aside],
            "column": [a.column for a in aside],
            "rule": [a.rule for a in aside],
            "message": [a.message for a in aside],
            "run_id": [self.job.run_id] * len(aside),
        }
        table = pa.table(columns, schema=schemas.QUARANTINE)
        return self._write(QUARANTINE, day, name, [table])

    def _refused(
        self, day: str, split: Split, rule: str, message: str, attempt: int
    ) -> dict[str, Any]:
        """The receipt of a split that could not be read: all its rows are set aside."""
        aside = [SetAside(None, "", rule, message)]
        name = f"{self.job.run_id}-{split.id}-{attempt}"
        return {
            "split": split.id,
            "file": split.key,
            "rows": split.rows,
            "filtered": 0,
            "scored": 0,
            "flagged": 0,
            "quarantined": split.rows,
            "unreadable": {"rule": rule, "message": message},
            "rules": [],
            "attempt": attempt,
            "shards": [],
            "score_shards": [],
            "quarantine_shards": self._quarantine(day, name, split.key, aside),
            "labelled": [],
            "seconds": 0.0,
        }


def labelled_scores(lot: Lot, scores: Mapping[str, np.ndarray], roles: Roles) -> pa.Table:
    """Scores beside the label (int8, null where there is none) and the kind of anomaly."""
    columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
    if roles.label:
        columns["label"] = lot.rows.column(roles.label).cast(pa.int8())
    if roles.kind:
        columns["kind"] = lot.rows.column(roles.kind).cast(pa.string())
    return pa.table(columns)


class _Found:
    """What the lots of a split leave behind."""

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self._values: list[Tensor] = []
        self._codes: list[Tensor] = []
        self.every: list[pa.Table] = []
        self.labelled: list[pa.Table] = []

    def add(self, numbers: np.ndarray, scores: np.ndarray, values: Tensor, codes: Tensor) -> None:
        self._numbers.append(numbers)
        self._scores.append(scores)
        self._values.append(values)
        self._codes.append(codes)

    @property
    def numbers(self) -> np.ndarray:
        """Row numbers in the file of the flagged rows: int64, ascending."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, np.int64)

    @property
    def scores(self) -> np.ndarray:
        return np.concatenate(self._scores) if self._scores else np.empty(0, np.float32)

    @property
    def extracted(self) -> Extracted:
        """What the encoder made of the flagged rows."""
        return Extracted(torch.cat(self._values), torch.cat(self._codes), ())


class Tally:
    """Counts of a split that the run card and the gates need."""

    def __init__(self) -> None:
        self.non_finite = 0
        self.hours: dict[str, list[int]] = {}
        self.histogram = ScoreHistogram()
        self._scores: list[np.ndarray] = []

    def add(self, scores: np.ndarray) -> None:
        finite = np.isfinite(scores)
        if not finite.all():
            self.non_finite += int((~finite).sum())
            scores = scores[finite]
        self._scores.append(scores)

    def close(self, admission: Admission, found: _Found, roles: Roles, stages: Stages) -> None:
        """Once all lots are added: count the scores, and rows and flags by the hour."""
        with stages("filter"):
            if self._scores:
                self.histogram.update(np.concatenate(self._scores))
            if roles.time and admission.ahead is not None:
                time_column = admission.ahead.column(roles.time)
                if pa.types.is_timestamp(time_column.type):
                    flagged = np.searchsorted(admission.numbers, found.numbers)
                    self._by_hour(time_column, flagged, admission.used)

    def _by_hour(self, time_column: pa.ChunkedArray, flagged: np.ndarray, used: np.ndarray) -> None:
        per_hour = 3600 * _PER_SECOND[time_column.type.unit]
        instants = time_column.cast(pa.int64()).fill_null(0).to_numpy() // per_hour
        first = int(instants.min()) if len(instants) else 0
        if len(instants) and int(instants.max()) - first < _MOST_HOURS:
            rows = np.bincount((instants - first)[used])
            flags = np.bincount((instants - first)[flagged], minlength=len(rows))
            hours = np.flatnonzero(rows)
            values, counts, marked = hours + first, rows[hours], flags[hours]
        else:  # times all over the place: no table of all hours between
            values, place = np.unique(instants, return_inverse=True)
            counts = np.bincount(place[used], minlength=len(values))
            marked = np.bincount(place[flagged], minlength=len(values))
        for value, n, m in zip(values.tolist(), counts.tolist(), marked.tolist(), strict=True):
            if n:
                self.hours[str(value)] = [n, m]

    def to_document(self) -> dict[str, Any]:
        return {
            "non_finite": self.non_finite,
            "sketch": self.histogram.to_document(),
            "hours": self.hours,
        }


def _rules(file: str, aside: list[SetAside]) -> list[dict[str, Any]]:
    """Rows set aside by column and rule, each with a few row numbers as examples."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for item in aside:
        if item.row is not None:
            grouped.setdefault((item.column, item.rule), []).append(item.row)
    return [
        {"file": file, "column": column, "rule": rule, "rows": len(rows), "examples": rows[:5]}
        for (column, rule), rows in sorted(grouped.items())
    ]
