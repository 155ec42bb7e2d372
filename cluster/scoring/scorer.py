"""The scorer: a worker that reads, scores and explains tasks of one or more days, exactly once."""

import hashlib
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.looks import Looks, UnsettledInput
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
from cluster.lake.output.shard import Shard, shard_key, write_shard
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.retries import thread_retries
from cluster.lake.types.python_values import to_python
from cluster.runtime.resources import ActorPlan
from cluster.runtime.watchdog import read_patience, show_life
from cluster.scoring.apart import Room, TaskTrial, run_in_process
from cluster.scoring.disguise import Disguise
from cluster.scoring.findings import ReadSplit, SplitFindings, TaskFindings
from cluster.scoring.labelled import label_scores
from cluster.scoring.receipt import LABELLED, Receipt
from cluster.splits import chunks
from cluster.splits.admission import AdmittedRows, Intake
from cluster.splits.counts import Counts
from cluster.splits.stages import Stages
from cluster.splits.worker import SplitWorker
from models.bundle import Backend, open_bundle
from models.columns import Roles
from models.encoding.raw_batch import join

# Attempts at a task in a process that it shares with others. A night may well lose two nodes under
# the same task; after a fourth loss a split of it is suspected, and the task is tried apart.
ATTEMPTS = 4
# Shares of the time after which an engine gives up on tasks that do not answer. A task that takes
# the first is noted as hanging, before the engine gives up, and tried apart from then on. There it
# gets the second, as the engine goes on waiting for all.
_HANGING, _APART = 0.75, 0.5
# Flags of a task that get a picture, the most severe first: each takes about 1 ms and 2 kB.
PICTURES = 100


@dataclass(frozen=True)
class ScoringJob:
    """The facts of a run that a worker needs, as plain values."""

    run_id: str
    day: str
    input_uri: str
    output_uri: str
    schema: pa.Schema  # of the input, in the types that its columns are read in
    roles: Roles
    filter: str | None
    bundle: str
    backend: Backend  # that computes all scores of the run
    digest: str  # of the bundle: a worker opens only the one that the driver has verified
    threshold: float
    top_reasons: int
    all_scores: bool
    key_id: str  # of the key for sensitive columns; each node has the key in its environment
    driver: str = field(default_factory=lambda: uuid.uuid4().hex)  # names the command


class Scorer(SplitWorker[Task, Receipt]):
    """Scores the tasks of days that have the same output and bundle."""

    work_type, answer_type = Task, Receipt

    def __init__(self, plan: ActorPlan, jobs: Sequence[ScoringJob]) -> None:
        super().__init__(plan)
        self.model = Model(self, jobs[0])
        self.runs = {job.day: RunScorer(self.model, job) for job in jobs}

    def answer(self, day: str, task: Task) -> Receipt:
        return self.runs[day].answer(task)


class Model:
    """A bundle in a worker, and the room to compute with it."""

    def __init__(self, worker: "Scorer", job: ScoringJob) -> None:
        self.plan = worker.plan
        self.output = open_store(job.output_uri)
        bundle = open_bundle(
            Registry(self.output.child(REGISTRY)).read_bundle(job.bundle), job.digest
        )
        self.extractor = bundle.extractor
        self.detector = worker.open_model(bundle, job.backend)
        self.severity = bundle.severity
        self.room = Room()
        # On CPUs a few threads compute at a time, and others fetch or write meanwhile.
        self.turn: AbstractContextManager[Any] = nullcontext()
        if not self.plan.gpus:
            self.turn = threading.BoundedSemaphore(self.plan.computing)


class RunScorer:
    """Reads, scores and explains the tasks of one run, and writes one shard of flags a task."""

    def __init__(self, model: Model, job: ScoringJob) -> None:
        self.model, self.job, self.output = model, job, model.output
        self.extractor, self.severity = model.extractor, model.severity
        self.looks = Looks()
        self.disguise = Disguise.of(job.roles).require_key(job.key_id)
        self.journal = Journal(self.output.child(RUNS), job.run_id)
        self.intake = self._intake()

    def _intake(self) -> Intake:
        """Read id and time of all rows, and other columns of flagged rows only, unless labels or
        the table of all scores need them."""
        job, roles = self.job, self.job.roles
        carried = tuple(filter(None, [roles.label, roles.kind]))
        time = (roles.time,) if roles.time else ()
        if job.all_scores:
            carried = (*roles.id, *time, *roles.entity, *carried)
        return Intake(
            job.input_uri,
            self.extractor,
            roles,
            job.filter,
            carried,
            time,
            tuple(roles.flagged),
            self.disguise.hash_key,
            job.schema,
        )

    def answer(self, task: Task) -> Receipt:
        with self.model.room.shared():
            attempt = self.journal.begin_attempt(task.id, self.job.driver)
            if attempt == 1 or (attempt <= ATTEMPTS and not self.journal.has_hung(task.id)):
                with self._note_hanging(task):
                    return self.score_task(task, attempt)
        with self.model.room.alone():
            return self._try_apart(task, attempt)

    def _try_apart(self, task: Task, attempt: int) -> Receipt:
        make = partial(_make_scorer, type(self), self.model.plan, self.job)
        seconds = _APART * read_patience()

        def run(number: int, places: Collection[int], record: bool) -> Receipt:
            show_life()
            arguments = (task, number, places, record)
            return run_in_process(make, RunScorer.score_task, seconds, *arguments)

        return TaskTrial(self.journal, self.job.driver, task, ATTEMPTS, run).answer(attempt)

    @contextmanager
    def _note_hanging(self, task: Task) -> Iterator[None]:
        """Note in the journal that the task hangs, if the block takes so long."""
        seconds = _HANGING * read_patience()
        timer = threading.Timer(seconds, self.journal.note_hanging, (task.id,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def score_task(
        self,
        task: Task,
        attempt: int,
        places: Collection[int] | None = None,
        record: bool = True,
    ) -> Receipt:
        """Score a task, write its shards and record its receipt, in one attempt.

        A receipt with a split that was refused is not recorded.

        With `places`, a split at another place of the task is left out, as one that stops its
        process; each split is marked before it is begun, and scored by itself. Without `record`,
        these splits alone are scored, and nothing is recorded.
        """
        resent_before = thread_retries().value
        stages, findings = Stages(), TaskFindings()
        for place, split in enumerate(task.splits):
            if places is None:
                self._read(split, findings, stages)
            elif place in places:
                self.journal.begin_step(task.id, attempt, place)
                self._read(split, findings, stages)
                self._score_waiting(findings, stages)
            elif record:
                message = "each time that the split was scored alone, its process died or hung"
                findings.refuse(split, "stops_the_scorer", message)
        self._score_waiting(findings, stages)
        shards = self._write_shards(f"{self.job.run_id}-{task.id}-{attempt}", findings, stages)
        resent = thread_retries().value - resent_before
        receipt = Receipt(
            task=task.id,
            attempt=attempt,
            counts=findings.counts + Counts(retried=int(attempt > 1), resent=resent),
            scores=findings.scores,
            keys=findings.keys,
            hours=findings.hours,
            quarantine=tuple(findings.rules),
            shards=shards,
            stages=stages.to_document(),
        )
        if receipt.refused or not record:  # a rerun looks again at what was refused
            return receipt
        # An earlier attempt may have left a record meanwhile: then that one counts.
        return Receipt.from_document(self.journal.record(task.id, receipt.to_document()))

    def _read(self, split: Split, findings: TaskFindings, stages: Stages) -> None:
        """Read a split, and score it unless it is small: a small one waits for its neighbours.

        All of the split goes into the findings, or, where it cannot be read, none.
        """
        small = self.intake.reads_at_once(split)
        if not small:
            self._score_waiting(findings, stages)
        try:
            read = self.looks.read(split.key, lambda: self._read_once(split, small, stages))
        except UnreadableFile as error:
            findings.refuse(split, error.rule, str(error))
            return
        except UnsettledInput as error:
            # What the disk cannot read for the second driver is damaged as far as anyone can tell.
            doubted = self.journal.doubt(split.id, error.rule, self.job.driver)
            settled = doubted and error.rule == "unreadable"
            findings.refuse(split, error.rule, str(error), settled)
            return
        if not small:
            with stages("filter"):
                findings.add(read, self.job.roles)
            return
        findings.waiting.append(read)
        if sum(one.split.rows for one in findings.waiting) >= self.intake.batch_rows:
            self._score_waiting(findings, stages)

    def _read_once(self, split: Split, small: bool, stages: Stages) -> ReadSplit:
        """Read a split, and score it unless it is small."""
        with self.intake.open(split, stages) as admission:
            read = ReadSplit(split, admission, [], SplitFindings())
            with self.model.turn:
                for admitted in admission.admit():
                    if small:
                        read.admitted.append(admitted)
                    else:
                        self._score([(admitted, read.findings)], stages)
            if len(read.findings.numbers):
                with stages("read"):
                    read.findings.rows = self._read_flagged(read)
            return read

    def _score_waiting(self, findings: TaskFindings, stages: Stages) -> None:
        """Score the waiting splits together: alone, each would fill a part of a chunk. Scoring
        2,000 files of 4,000 rows took half the time."""
        waiting, findings.waiting = findings.waiting, []
        with self.model.turn:
            self._score([(rows, one.findings) for one in waiting for rows in one.admitted], stages)
        with stages("filter"):
            for one in waiting:
                if len(one.findings.numbers):
                    one.findings.rows = self._read_flagged(one)
                findings.add(one, self.job.roles)

    def _read_flagged(self, read: ReadSplit) -> pa.Table:
        """The columns that flags carry, of the flagged rows; sensitive values are disguised."""
        names, numbers = self.job.roles.flagged, read.findings.numbers
        table = read.admission.read_columns(names, numbers)
        late = read.admission.set_aside(table, numbers)
        if len(late):
            read.findings.drop(late)
            table = table.filter(pa.array(~np.isin(numbers, late)))
        return self.disguise.hide(table)

    def _score(self, parts: Sequence[tuple[AdmittedRows, SplitFindings]], stages: Stages) -> None:
        """Score all parts at once, and add the results of each to its findings."""
        if not parts:
            return
        with stages("score"):
            extracted = join([admitted.extracted for admitted, _ in parts])
            scored = self.model.detector.score(extracted)
        roles = self.job.roles
        with stages("filter"):
            edges = np.cumsum([len(admitted.numbers) for admitted, _ in parts])[:-1]
            for (admitted, findings), scores in zip(parts, np.split(scored, edges), strict=True):
                findings.add(admitted, scores, np.flatnonzero(scores > self.job.threshold))
                if self.job.all_scores:
                    findings.score_tables.append(self._make_scores(admitted, scores))
                if roles.label:
                    findings.labelled.append(label_scores(admitted, {"score": scores}, roles))

    def _write_shards(self, name: str, findings: TaskFindings, stages: Stages) -> dict[str, Shard]:
        """Write the tables that have rows, one shard each."""
        splits = [found for _, found in findings.splits]
        tables = {FLAGS: self._make_flags(findings, stages)}
        with stages("write"):
            tables[SCORES] = [table for found in splits for table in found.score_tables]
            tables[QUARANTINE] = self._make_quarantine(findings)
            tables[LABELLED] = [table for found in splits for table in found.labelled]
            return {
                table: self._write(table, name, parts) for table, parts in tables.items() if parts
            }

    def _write(self, table: str, name: str, parts: list[pa.Table]) -> Shard:
        folder = f"{RUNS}/{self.job.run_id}/{LABELLED}" if table == LABELLED else table
        whole = pa.concat_tables(parts)
        return write_shard(self.output.child(folder), shard_key(self.job.day, name), whole)

    def _make_flags(self, findings: TaskFindings, stages: Stages) -> list[pa.Table]:
        """The flagged rows with the columns that they carry and their reasons: one table, or none.
        All reasons are found at once."""
        parts = [(file, found) for file, found in findings.splits if len(found.numbers)]
        if not parts:
            return []
        job = self.job
        scores = np.concatenate([found.scores for _, found in parts])
        with stages("reasons"):
            extracted = join([one for _, found in parts for one in found.extracted])
            explained = chunks.explain_rows(
                self.model.detector,
                self.extractor,
                extracted,
                job.roles,
                job.top_reasons,
                set(np.argsort(-scores, kind="stable")[:PICTURES].tolist()),
            )
        schema = flag_schema(job.schema, job.roles)
        with stages("write"):
            conformed = [_conform(found, schema, job.roles) for _, found in parts]
            carried = pa.concat_tables(conformed)
            ids = [
                name
                for (file, found), rows in zip(parts, conformed, strict=True)
                for name in self._anomaly_ids(file, found.numbers, rows)
            ]
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

    def _anomaly_ids(self, file: str, numbers: np.ndarray, rows: pa.Table) -> list[str]:
        """A row and a bundle always give the same anomaly id: by the row's id, in the types of the
        table of flags, or by its place."""
        keys: Iterable[tuple[Any, ...]]
        if self.job.roles.id:
            keys = zip(*(to_python(rows[n]) for n in self.job.roles.id), strict=True)
        else:
            keys = zip([file] * len(numbers), numbers.tolist(), strict=True)
        return [
            hashlib.sha256(repr((self.job.bundle, *key)).encode()).hexdigest()[:20] for key in keys
        ]

    def _make_scores(self, admitted: AdmittedRows, scores: np.ndarray) -> pa.Table:
        schema = score_schema(self.job.schema, self.job.roles)
        names = tuple(n for n in schema.names if n not in ("score", "run_id"))
        rows = self.disguise.hide(pa.Table.from_batches([admitted.rows.select(names)]))
        columns = [
            *conform_columns(rows, schema, names),
            pa.array(scores, pa.float32()),
            pa.array([self.job.run_id] * len(scores)),
        ]
        return pa.table(columns, schema=schema)

    def _make_quarantine(self, findings: TaskFindings) -> list[pa.Table]:
        rows = findings.quarantined
        if not rows:
            return []
        columns = {
            "file": [file for file, _ in rows],
            "row": [row.row for _, row in rows],
            "column": [row.column for _, row in rows],
            "rule": [row.rule for _, row in rows],
            "message": [row.message for _, row in rows],
            "run_id": [self.job.run_id] * len(rows),
        }
        return [pa.table(columns, schema=QUARANTINE_SCHEMA)]


def _make_scorer(scorer: type[RunScorer], plan: ActorPlan, job: ScoringJob) -> RunScorer:
    return scorer(Scorer(plan, [job]).model, job)


def _conform(found: SplitFindings, schema: pa.Schema, roles: Roles) -> pa.Table:
    return pa.table(conform_columns(found.rows, schema, roles.flagged), names=list(roles.flagged))
