"""Scoring a day: what one actor does with one split, exactly once."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster import judge
from cluster.intake import Books, Intake, Lot, SetAside, take
from cluster.lake import schemas, shard
from cluster.lake.journal import Journal
from cluster.lake.reading import UnreadableFile
from cluster.lake.registry import Registry
from cluster.lake.snapshot import Split
from cluster.lake.store import ChangedSinceSnapshot, Store
from cluster.resources import ActorPlan, plan_actors
from cluster.stream import SplitWorker, stream
from models.bundle import open_bundle
from models.columns import Roles
from models.sketch import ScoreSketch

# A split that was begun this often and never finished goes to the quarantine: a node may well be
# lost twice in a night under the same split, four times points to the split.
ATTEMPTS = 4

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
        carried = (*job.roles.flagged, *filter(None, [job.roles.label, job.roles.kind]))
        self.intake = Intake(job.input_uri, self.encoder, job.roles, job.filter, carried)

    def answer(self, day: str, split: Split) -> dict[str, Any]:
        attempt = self.journal.begin_attempt(split.id, ATTEMPTS)
        if attempt is None:
            message = f"the split stopped its actor {ATTEMPTS} times"
            receipt = self._refused(day, split, "stops_the_scorer", message, ATTEMPTS + 1)
        else:
            receipt = self._score(day, split, attempt)
        return self.journal.record(split.id, receipt)

    def _score(self, day: str, split: Split, attempt: int) -> dict[str, Any]:
        started = time.monotonic()
        books, tally = Books(), Tally()
        flags: list[pa.Table] = []
        every: list[pa.Table] = []
        labelled: list[pa.Table] = []
        try:
            for lot in self.intake.lots(split, books):
                scores = judge.scores(
                    self.encoder, {"": self.detector}, lot.extracted, self.device
                )[""]
                flagged = np.flatnonzero(scores > self.job.threshold)
                tally.add(lot, scores, flagged, self.job.roles)
                if len(flagged):
                    flags.append(self._flags(split, take(lot, flagged), scores[flagged]))
                if self.job.all_scores:
                    every.append(self._scores(lot, scores))
                if self.job.roles.label:
                    labelled.append(labelled_scores(lot, {"score": scores}, self.job.roles))
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
            "flagged": tally.flagged,
            "quarantined": len(books.set_aside),
            "rules": _rules(split.key, books.set_aside),
            "keys": books.keys.to_document(),
            "attempt": attempt,
            **tally.to_document(),
        }
        receipt["shards"] = self._write(FLAGS, day, name, flags)
        receipt["score_shards"] = self._write(SCORES, day, name, every)
        receipt["quarantine_shards"] = self._quarantine(day, name, split.key, books.set_aside)
        receipt["labelled"] = self._write(f"{RUNS}/{self.job.run_id}/labelled", day, name, labelled)
        receipt["seconds"] = round(time.monotonic() - started, 3)
        return receipt

    def _flags(self, split: Split, lot: Lot, scores: np.ndarray) -> pa.Table:
        job = self.job
        schema = schemas.flags(job.schema, job.roles)
        rows = len(scores)
        columns = [
            *schemas.conform(lot.rows, schema, job.roles.flagged),
            pa.array(scores, pa.float32()),
            pa.array(self.severity(scores), pa.float32()),
            pa.array(np.full(rows, job.threshold, np.float32)),
            judge.reasons(
                self.encoder, self.detector, lot.extracted, job.roles, job.top_reasons, self.device
            ),
            pa.array(self._anomaly_ids(split, lot)),
            pa.array([job.bundle] * rows),
            pa.array([job.run_id] * rows),
        ]
        return pa.table(columns, schema=schema)

    def _anomaly_ids(self, split: Split, lot: Lot) -> list[str]:
        """The same for a row and a model, whenever it is scored: by the id, else by its place."""
        if self.job.roles.id:
            names = self.job.roles.id
            keys = zip(*(lot.rows.column(n).to_pylist() for n in names), strict=True)
        else:
            keys = zip([split.key] * len(lot.numbers), lot.numbers.tolist(), strict=True)
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


class Tally:
    """Counts of a split that the run card and the gates need."""

    def __init__(self) -> None:
        self.flagged = 0
        self.non_finite = 0
        self.all = ScoreSketch()
        self.hours: dict[str, list[int]] = {}

    def add(self, lot: Lot, scores: np.ndarray, flagged: np.ndarray, roles: Roles) -> None:
        self.flagged += len(flagged)
        finite = np.isfinite(scores)
        self.non_finite += int((~finite).sum())
        self.all.update(scores[finite])
        is_flag = np.zeros(len(scores), bool)
        is_flag[flagged] = True
        if roles.time and pa.types.is_timestamp(lot.rows.column(roles.time).type):
            self._by_hour(lot.rows.column(roles.time), is_flag)

    def _by_hour(self, time_column: pa.Array, is_flag: np.ndarray) -> None:
        hour = pc.cast(time_column, pa.timestamp("s", tz=time_column.type.tz), safe=False)
        seconds = hour.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) // 3600
        unique, place = np.unique(seconds, return_inverse=True)
        rows = np.bincount(place, minlength=len(unique))
        flags = np.bincount(place, weights=is_flag, minlength=len(unique))
        for value, n, m in zip(unique.tolist(), rows.tolist(), flags.tolist(), strict=True):
            entry = self.hours.setdefault(str(value), [0, 0])
            entry[0] += n
            entry[1] += int(m)

    def to_document(self) -> dict[str, Any]:
        return {
            "non_finite": self.non_finite,
            "sketch": self.all.to_document(),
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
