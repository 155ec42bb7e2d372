"""Scoring a day: what one actor does with one split, exactly once."""

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from cluster import judge
from cluster.distinct import KeySample
from cluster.intake import Admission, Books, Intake, Lot, SetAside
from cluster.lake import retries, schemas, shard
from cluster.lake.journal import Journal
from cluster.lake.reading import UnreadableFile
from cluster.lake.registry import Registry
from cluster.lake.snapshot import Split, Task
from cluster.lake.store import ChangedSinceSnapshot, Store
from cluster.resources import ActorPlan, plan_actors
from cluster.stages import Stages
from cluster.stream import SplitWorker, stream
from models.bundle import open_bundle
from models.columns import Roles
from models.extracted import Extracted, joined
from models.score_histogram import ScoreHistogram

# What was begun this often and never finished goes to the quarantine: a node may well be lost twice
# in a night under the same split, four times points to the split.
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
    job: ScoringJob, day: str, tasks: Sequence[Task], plan: ActorPlan | None = None
) -> Iterator[dict[str, Any]]:
    """Score the tasks over Ray Data; yields their receipts, in any order."""
    yield from stream([(day, task) for task in tasks], Scorer, (job,), plan or plan_actors())


class Scorer(SplitWorker):
    """Reads, scores and explains tasks; keeps the flags in one shard a task."""

    takes = Task

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
        # On CPUs one thread computes at a time, and others fetch or write meanwhile.
        self.turn: AbstractContextManager[Any] = nullcontext() if plan.gpus else threading.Lock()

    def _intake(self) -> Intake:
        """Id and time of all rows; other columns only of flagged rows, unless a table of every
        row's score, or the label, asks for them."""
        job, roles = self.job, self.job.roles
        carried = tuple(filter(None, [roles.label, roles.kind]))
        time = (roles.time,) if roles.time else ()
        if job.all_scores:
            carried = (*roles.id, *time, *roles.entity, *carried)
        return Intake(
            job.input_uri, self.encoder, roles, job.filter, carried, time, tuple(roles.flagged)
        )

    def answer(self, day: str, task: Task) -> dict[str, Any]:
        resent = retries.mine().value
        limit = ATTEMPTS + (len(task.splits) if len(task.splits) > 1 else 0)
        attempt = self.journal.begin_attempt(task.id, limit)
        stoppers = self._stoppers(task, attempt)
        attempt = attempt or limit + 1
        stages, outcome = Stages(), _Outcome()
        for place, split in enumerate(task.splits):
            if place in stoppers:
                message = f"the split stopped its actor {attempt - 1} times"
                outcome.refuse(split, "stops_the_scorer", message)
                continue
            if attempt > ATTEMPTS:
                self.journal.begin_step(task.id, attempt, place)
            self._score(split, outcome, stages)
            if attempt > ATTEMPTS:  # what stops the actor must stop it at its own place
                self._judge_waiting(outcome, stages)
        self._judge_waiting(outcome, stages)
        receipt = self._receipt(day, task, attempt, outcome, stages)
        receipt["resent"] = retries.mine().value - resent
        return self.journal.record(task.id, receipt)

    def _stoppers(self, task: Task, attempt: int | None) -> Collection[int]:
        """Places of the splits that stop their actor.

        When a task of several was begun `ATTEMPTS` times, each further attempt marks its way: the
        split that it does not come back from is left out of the next.
        """
        if attempt is None:
            return range(len(task.splits))
        earlier = range(ATTEMPTS + 1, attempt)
        steps = (self.journal.last_step(task.id, one) for one in earlier)
        return {step for step in steps if step is not None}

    def _score(self, split: Split, outcome: "_Outcome", stages: Stages) -> None:
        """One split: all of it goes into the outcome, or, where it cannot be read, none; a small
        one waits for its neighbours."""
        books, found = Books(), _Found()
        small = self.intake.reads_at_once(split)
        if not small:
            self._judge_waiting(outcome, stages)
        try:
            with self.intake.open(split, books, stages) as admission:
                with self.turn:
                    if small:
                        lots = list(admission.lots())
                    else:
                        for lot in admission.lots():
                            self._judge([(lot, found)], stages)
                if len(found.numbers):
                    with stages("read"):
                        found.rows = admission.take(self.job.roles.flagged, found.numbers)
        except (UnreadableFile, ChangedSinceSnapshot) as error:
            outcome.refuse(split, getattr(error, "rule", "changed"), str(error))
            return
        if small:
            outcome.waiting.append(_Read(split, books, admission, lots, found))
            if sum(one.split.rows for one in outcome.waiting) >= self.intake.batch_rows:
                self._judge_waiting(outcome, stages)
            return
        with stages("filter"):
            outcome.add(split, books, found, admission, self.job.roles)

    def _judge_waiting(self, outcome: "_Outcome", stages: Stages) -> None:
        """Small splits together: one by one each would fill a part of a chunk. Scoring 2,000 files
        of 4,000 rows took half the time."""
        waiting, outcome.waiting = outcome.waiting, []
        with self.turn:
            self._judge([(lot, one.found) for one in waiting for lot in one.lots], stages)
        with stages("filter"):
            for split, books, admission, _, found in waiting:
                if len(found.numbers):
                    found.rows = admission.take(self.job.roles.flagged, found.numbers)
                outcome.add(split, books, found, admission, self.job.roles)

    def _receipt(
        self, day: str, task: Task, attempt: int, outcome: "_Outcome", stages: Stages
    ) -> dict[str, Any]:
        """Write what there is to write, and say what was done."""
        flags = self._flags(outcome.found, stages)
        name = f"{self.job.run_id}-{task.id}-{attempt}"
        receipt = {
            "split": task.id,
            "file": task.files,
            "splits": len(task.splits),
            "flagged": sum(len(found.numbers) for _, found in outcome.found),
            "attempt": attempt,
            **outcome.to_document(),
        }
        with stages("write"):
            labelled = f"{RUNS}/{self.job.run_id}/labelled"
            every = [table for _, found in outcome.found for table in found.every]
            answers = [table for _, found in outcome.found for table in found.labelled]
            receipt["shards"] = self._write(FLAGS, day, name, flags)
            receipt["score_shards"] = self._write(SCORES, day, name, every)
            receipt["quarantine_shards"] = self._quarantine(day, name, outcome.aside)
            receipt["labelled"] = self._write(labelled, day, name, answers)
        receipt["stages"] = stages.to_document()
        receipt["seconds"] = round(sum(stages.seconds.values()), 3)
        return receipt

    def _judge(self, lots: "Sequence[tuple[Lot, _Found]]", stages: Stages) -> None:
        """Score lots, as if they were one, and keep what is to be kept of each."""
        if not lots:
            return
        with stages("score"):
            extracted = joined([lot.extracted for lot, _ in lots])
            scored = judge.scores(self.encoder, {"": self.detector}, extracted, self.device)[""]
        with stages("filter"):
            edges = np.cumsum([len(lot.numbers) for lot, _ in lots])[:-1]
            for (lot, found), scores in zip(lots, np.split(scored, edges), strict=True):
                flagged = np.flatnonzero(scores > self.job.threshold)
                found.add(lot, scores, flagged)
                if self.job.all_scores:
                    found.every.append(self._scores(lot, scores))
                if self.job.roles.label:
                    found.labelled.append(labelled_scores(lot, {"score": scores}, self.job.roles))

    def _flags(self, parts: list[tuple[str, "_Found"]], stages: Stages) -> list[pa.Table]:
        """The flagged rows, with the columns that only they need, and their reasons, which are
        found for all at once: one table, or none."""
        parts = [(key, found) for key, found in parts if len(found.numbers)]
        if not parts:
            return []
        job = self.job
        scores = np.concatenate([found.scores for _, found in parts])
        with stages("reasons"):
            extracted = joined([one for _, found in parts for one in found.extracted])
            reasons = judge.reasons(
                self.encoder, self.detector, extracted, job.roles, job.top_reasons, self.device
            )
        schema = schemas.flags(job.schema, job.roles)
        with stages("write"):
            carried = pa.concat_tables([_conformed(found, schema, job.roles) for _, found in parts])
            ids = [name for key, found in parts for name in self._anomaly_ids(key, found)]
            columns = [
                *carried.columns,
                pa.array(scores, pa.float32()),
                pa.array(self.severity(scores), pa.float32()),
                pa.array(np.full(len(scores), job.threshold, np.float32)),
                reasons,
                pa.array(ids),
                pa.repeat(job.bundle, len(scores)),
                pa.repeat(job.run_id, len(scores)),
            ]
            return [pa.table(columns, schema=schema)]

    def _anomaly_ids(self, key: str, found: "_Found") -> list[str]:
        """The same for a row and a model, whenever it is scored: by the id, else by its place."""
        keys: Iterable[tuple[Any, ...]]
        if self.job.roles.id:
            keys = zip(*(found.rows[n].to_pylist() for n in self.job.roles.id), strict=True)
        else:
            keys = zip([key] * len(found.numbers), found.numbers.tolist(), strict=True)
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

    def _quarantine(self, day: str, name: str, aside: list[tuple[str, SetAside]]) -> list[Any]:
        if not aside:
            return []
        columns = {
            "file": [file for file, _ in aside],
            "row": [a.row for _, a in aside],
            "column": [a.column for _, a in aside],
            "rule": [a.rule for _, a in aside],
            "message": [a.message for _, a in aside],
            "run_id": [self.job.run_id] * len(aside),
        }
        table = pa.table(columns, schema=schemas.QUARANTINE)
        return self._write(QUARANTINE, day, name, [table])


def _conformed(found: "_Found", schema: pa.Schema, roles: Roles) -> pa.Table:
    return pa.table(schemas.conform(found.rows, schema, roles.flagged), names=list(roles.flagged))


def labelled_scores(lot: Lot, scores: Mapping[str, np.ndarray], roles: Roles) -> pa.Table:
    """Scores beside the label (int8, null where there is none) and the kind of anomaly."""
    columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
    if roles.label:
        columns["label"] = lot.rows.column(roles.label).cast(pa.int8())
    if roles.kind:
        columns["kind"] = lot.rows.column(roles.kind).cast(pa.string())
    return pa.table(columns)


class _Found:
    """What the lots of one split leave behind."""

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self.extracted: list[Extracted] = []  # of the flagged rows
        self.all_scores: list[np.ndarray] = []
        self.every: list[pa.Table] = []
        self.labelled: list[pa.Table] = []
        self.rows = pa.table({})  # columns of the flagged rows that a flag carries

    def add(self, lot: Lot, scores: np.ndarray, flagged: np.ndarray) -> None:
        self.all_scores.append(scores)
        if len(flagged):
            self._numbers.append(lot.numbers[flagged])
            self._scores.append(scores[flagged])
            self.extracted.append(lot.extracted.take(torch.from_numpy(flagged)))

    @property
    def numbers(self) -> np.ndarray:
        """Row numbers in the file of the flagged rows: int64, ascending."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, np.int64)

    @property
    def scores(self) -> np.ndarray:
        """Their scores, float32."""
        return np.concatenate(self._scores)


class _Read(NamedTuple):
    """A small split whose rows wait to be judged."""

    split: Split
    books: Books
    admission: Admission
    lots: list[Lot]
    found: _Found


class _Outcome:
    """What became of the rows of a task, split by split."""

    def __init__(self) -> None:
        self.rows = self.filtered = self.scored = self.quarantined = 0
        self.aside: list[tuple[str, SetAside]] = []
        self.rules: list[dict[str, Any]] = []
        self.unreadable: list[dict[str, Any]] = []
        self.keys = KeySample()
        self.tally = Tally()
        self.found: list[tuple[str, _Found]] = []
        self.waiting: list[_Read] = []  # small splits that were read, and not yet judged

    def add(
        self, split: Split, books: Books, found: _Found, admission: Admission, roles: Roles
    ) -> None:
        self.rows += books.rows
        self.filtered += books.filtered
        self.scored += books.good
        self.quarantined += len(books.set_aside)
        self.aside += [(split.key, item) for item in books.set_aside]
        self.rules += _rules(split.key, books.set_aside)
        self.keys.merge(books.keys)
        self.tally.add(found, admission, roles)
        self.found.append((split.key, found))

    def refuse(self, split: Split, rule: str, message: str) -> None:
        """A split that could not be read: all its rows are set aside."""
        self.rows += split.rows
        self.quarantined += split.rows
        self.aside.append((split.key, SetAside(None, "", rule, message)))
        self.unreadable.append(
            {"file": split.key, "rows": split.rows, "rule": rule, "message": message}
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "filtered": self.filtered,
            "scored": self.scored,
            "quarantined": self.quarantined,
            "unreadable": self.unreadable,
            "rules": self.rules,
            "keys": self.keys.to_document(),
            **self.tally.to_document(),
        }


class Tally:
    """Counts of a task that the run card and the gates need."""

    def __init__(self) -> None:
        self.non_finite = 0
        self.hours: dict[str, list[int]] = {}
        self.histogram = ScoreHistogram()

    def add(self, found: _Found, admission: Admission, roles: Roles) -> None:
        """Count the scores of a split, and its rows and flags by the hour."""
        if found.all_scores:
            scores = np.concatenate(found.all_scores)
            finite = np.isfinite(scores)
            self.non_finite += int((~finite).sum())
            self.histogram.update(scores[finite])
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
                entry = self.hours.setdefault(str(value), [0, 0])
                entry[0] += n
                entry[1] += m

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
