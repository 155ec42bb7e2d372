"""Scoring a day: what one actor does with one split, exactly once."""

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.splits import Split, Task
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import (
    FLAGS,
    PICTURE,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    REGISTRY,
    RUNS,
    SCORES,
    conform_columns,
    flag_schema,
    score_schema,
)
from cluster.lake.output.shard import shard_key, write_shard
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.retries import thread_retries
from cluster.lake.storage.store import ChangedSinceSnapshot
from cluster.runtime.resources import ActorPlan
from cluster.scoring.disguise import Disguise
from cluster.scoring.labelled import labelled_scores
from cluster.scoring.outcome import Found, Outcome, ReadSplit
from cluster.splits import chunks
from cluster.splits.admission import AdmittedRows, Intake, Quarantined
from cluster.splits.stages import Stages
from cluster.splits.stream import Descriptor, SplitWorker, stream
from models.bundle import open_bundle
from models.columns import Roles
from models.encoding.raw_batch import join

# What was begun this often and never finished goes to the quarantine: a node may well be lost twice
# in a night under the same split, four times points to the split.
ATTEMPTS = 4
# Flags of a task, the most severe, that get a picture: each takes about 1 ms and 2 kB.
PICTURES = 100


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
    digest: str  # of the bundle: what the driver has verified is what is opened
    threshold: float
    top_reasons: int
    all_scores: bool
    key_id: str  # of the key of sensitive columns; the key itself is in each node's environment


def score(
    job: ScoringJob, day: str, tasks: Sequence[Descriptor], plan: ActorPlan
) -> Iterator[dict[str, Any]]:
    """Score the tasks over Ray Data; yields their receipts, in any order."""
    yield from stream([(day, task) for task in tasks], Scorer, (job,), plan)


class Scorer(SplitWorker):
    """Reads, scores and explains tasks; keeps the flags in one shard a task."""

    takes = Task

    def __init__(self, plan: ActorPlan, job: ScoringJob) -> None:
        super().__init__(plan)
        output = open_store(job.output_uri)
        bundle = open_bundle(Registry(output.child(REGISTRY)).read_bundle(job.bundle), job.digest)
        self.job, self.output = job, output
        self.encoder = bundle.encoder.to(self.device).eval()
        self.detector = bundle.detector.to(self.device).eval()
        self.severity = bundle.severity
        self.disguise = Disguise.of(job.roles).agree(job.key_id)
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
            job.input_uri,
            self.encoder,
            roles,
            job.filter,
            carried,
            time,
            tuple(roles.flagged),
            self.disguise.hash_key,
        )

    def answer(self, day: str, task: Task) -> dict[str, Any]:
        resent = thread_retries().value
        limit = ATTEMPTS + (len(task.splits) if len(task.splits) > 1 else 0)
        attempt = self.journal.begin_attempt(task.id, limit)
        stoppers = self._stoppers(task, attempt)
        attempt = attempt or limit + 1
        stages, outcome = Stages(), Outcome()
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
        receipt["resent"] = thread_retries().value - resent
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

    def _score(self, split: Split, outcome: Outcome, stages: Stages) -> None:
        """One split: all of it goes into the outcome, or, where it cannot be read, none; a small
        one waits for its neighbours."""
        small = self.intake.reads_at_once(split)
        if not small:
            self._judge_waiting(outcome, stages)
        try:
            with self.intake.open(split, stages) as admission:
                one = ReadSplit(split, admission, [], Found())
                with self.turn:
                    for admitted in admission.admit():
                        if small:
                            one.admitted.append(admitted)
                        else:
                            self._judge([(admitted, one.found)], stages)
                if len(one.found.numbers):
                    with stages("read"):
                        one.found.rows = self._flagged(one)
        except (UnreadableFile, ChangedSinceSnapshot) as error:
            outcome.refuse(split, getattr(error, "rule", "changed"), str(error))
            return
        if not small:
            with stages("filter"):
                outcome.add(one, self.job.roles)
            return
        outcome.waiting.append(one)
        if sum(read.split.rows for read in outcome.waiting) >= self.intake.batch_rows:
            self._judge_waiting(outcome, stages)

    def _judge_waiting(self, outcome: Outcome, stages: Stages) -> None:
        """Small splits together: one by one each would fill a part of a chunk. Scoring 2,000 files
        of 4,000 rows took half the time."""
        waiting, outcome.waiting = outcome.waiting, []
        with self.turn:
            self._judge([(rows, one.found) for one in waiting for rows in one.admitted], stages)
        with stages("filter"):
            for one in waiting:
                if len(one.found.numbers):
                    one.found.rows = self._flagged(one)
                outcome.add(one, self.job.roles)

    def _flagged(self, one: ReadSplit) -> pa.Table:
        """What flags carry of their rows, sensitive values disguised."""
        return self.disguise.table(
            one.admission.read_columns(self.job.roles.flagged, one.found.numbers)
        )

    def _receipt(
        self, day: str, task: Task, attempt: int, outcome: Outcome, stages: Stages
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

    def _judge(self, parts: Sequence[tuple[AdmittedRows, Found]], stages: Stages) -> None:
        """Score all parts at once, and keep the results of each."""
        if not parts:
            return
        with stages("score"):
            extracted = join([admitted.extracted for admitted, _ in parts])
            scored = chunks.scores(self.encoder, {"": self.detector}, extracted, self.device)[""]
        with stages("filter"):
            edges = np.cumsum([len(admitted.numbers) for admitted, _ in parts])[:-1]
            for (admitted, found), scores in zip(parts, np.split(scored, edges), strict=True):
                flagged = np.flatnonzero(scores > self.job.threshold)
                found.add(admitted, scores, flagged)
                if self.job.all_scores:
                    found.every.append(self._scores(admitted, scores))
                if self.job.roles.label:
                    found.labelled.append(
                        labelled_scores(admitted, {"score": scores}, self.job.roles)
                    )

    def _flags(self, parts: list[tuple[str, Found]], stages: Stages) -> list[pa.Table]:
        """The flagged rows, with the columns that only they need, and their reasons, which are
        found for all at once: one table, or none."""
        parts = [(key, found) for key, found in parts if len(found.numbers)]
        if not parts:
            return []
        job = self.job
        scores = np.concatenate([found.scores for _, found in parts])
        with stages("reasons"):
            extracted = join([one for _, found in parts for one in found.extracted])
            explained = chunks.explain(
                self.encoder,
                self.detector,
                extracted,
                job.roles,
                job.top_reasons,
                set(np.argsort(-scores, kind="stable")[:PICTURES].tolist()),
                self.device,
            )
        schema = flag_schema(job.schema, job.roles)
        with stages("write"):
            carried = pa.concat_tables([_conformed(found, schema, job.roles) for _, found in parts])
            ids = [name for key, found in parts for name in self._anomaly_ids(key, found)]
            columns = [
                *carried.columns,
                pa.array(scores, pa.float32()),
                pa.array(self.severity(scores), pa.float32()),
                pa.array(np.full(len(scores), job.threshold, np.float32)),
                explained.reasons,
                pa.array(ids),
                pa.repeat(job.bundle, len(scores)),
                pa.repeat(job.run_id, len(scores)),
            ]
            if job.roles.pictured:
                columns.append(pa.array(explained.pictures, PICTURE))
            return [pa.table(columns, schema=schema)]

    def _anomaly_ids(self, key: str, found: Found) -> list[str]:
        """The same for a row and a model, whenever it is scored: by the id, else by its place."""
        keys: Iterable[tuple[Any, ...]]
        if self.job.roles.id:
            keys = zip(*(found.rows[n].to_pylist() for n in self.job.roles.id), strict=True)
        else:
            keys = zip([key] * len(found.numbers), found.numbers.tolist(), strict=True)
        return [
            hashlib.sha256(repr((self.job.bundle, *key)).encode()).hexdigest()[:20] for key in keys
        ]

    def _scores(self, admitted: AdmittedRows, scores: np.ndarray) -> pa.Table:
        schema = score_schema(self.job.schema, self.job.roles)
        names = tuple(n for n in schema.names if n not in ("score", "run_id"))
        rows = self.disguise.table(pa.Table.from_batches([admitted.rows.select(names)]))
        columns = [
            *conform_columns(rows, schema, names),
            pa.array(scores, pa.float32()),
            pa.array([self.job.run_id] * len(scores)),
        ]
        return pa.table(columns, schema=schema)

    def _write(self, table: str, day: str, name: str, parts: list[pa.Table]) -> list[Any]:
        if not parts:
            return []
        whole = pa.concat_tables(parts)
        key = shard_key(day, name)
        return [write_shard(self.output.child(table), key, whole).to_document()]

    def _quarantine(self, day: str, name: str, aside: list[tuple[str, Quarantined]]) -> list[Any]:
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
        table = pa.table(columns, schema=QUARANTINE_SCHEMA)
        return self._write(QUARANTINE, day, name, [table])


def _conformed(found: Found, schema: pa.Schema, roles: Roles) -> pa.Table:
    return pa.table(conform_columns(found.rows, schema, roles.flagged), names=list(roles.flagged))
