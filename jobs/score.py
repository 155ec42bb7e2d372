"""Score a day: spec, champion, snapshot, splits, scores, books, gates, one commit, run card."""

import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cluster.lake.input.snapshot import find_drift
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import (
    FLAGS,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    REGISTRY,
    RUNS,
    SCORES,
    flag_schema,
    score_schema,
)
from cluster.lake.output.shard import shard_key, write_shard
from cluster.lake.output.table import Commit, LakeTable, read_commit_counter
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from cluster.runtime.nodes import nodes
from cluster.runtime.resources import plan_actors
from cluster.runtime.session import session
from cluster.scoring import scorer
from cluster.splits.stream import Pool
from jobs import check, input_rows
from jobs.champion import load_champion, require_newest
from jobs.monitoring.live import LiveMetrics
from jobs.report import run_card
from jobs.report.profile import Clock, slowest
from jobs.scoring import gates
from jobs.scoring.books import Balance
from jobs.scoring.gates import Gate
from jobs.scoring.plan import open_books
from jobs.scoring.run import Run
from jobs.scoring.segments import Compaction
from jobs.spec.spec import Spec
from jobs.terminal.console import Fact, say, step
from models.refusal import Refusal


@dataclass(frozen=True)
class Receipt:
    """What a run says about itself when it ends."""

    watch: str
    day: str
    run_id: str
    status: str  # "committed", or "refused" by a gate
    already: bool  # the same run had been committed before: nothing was done
    rows: int
    filtered: int
    scored: int
    quarantined: int
    flagged: int
    rejected_files: int
    seconds: float
    rows_per_second: float
    table_version: int | None
    card: str | None
    bundle: str
    threshold: str
    failed_gates: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def score(
    spec: Spec,
    day: str,
    *,
    address: str | None = None,
    single_writer: bool = False,
    clock: Clock | None = None,
    show_profile: bool = False,
    metrics: LiveMetrics | None = None,
) -> Receipt:
    """Score one day and commit its flags, once. Refused by a gate, nothing is committed.

    `clock` is one that ran before, such as while Ray started; its profile is on the run card, and
    with `show_profile` on stderr.
    """
    clock = clock or Clock()
    metrics = metrics or LiveMetrics(spec.name, "score")
    output = open_store(spec.output.uri)
    with clock("list"):
        # Before the snapshot: a run of newer files that commits from here on is not replaced.
        seen = _commits_so_far(spec, output, day)
        run = open_run(spec, day, output)
    table = flag_table(run)
    require_newest(spec, run.champion, table)
    if table.is_run_committed(day, run.run_id):
        return _already(run)
    _need_create_once(output, single_writer)
    journal = Journal(output.child(RUNS), run.run_id)
    with clock("plan"):
        compaction = Compaction(journal)
        balance, todo = open_books(run.snapshot, _facts(run), journal, compaction)
    if done := len(balance.splits):
        say(f"resuming run {run.run_id}: {done:,} of {balance.planned:,} splits are done")
    began = time.monotonic()
    with session(address) as where:
        remote = output.remote or open_store(run.snapshot.uri).remote
        demand = run.demand(max((task.bytes for task in todo), default=0))
        plan = plan_actors(nodes(ask_gpus=bool(todo)), demand, remote)
        pool = Pool(plan, len(todo))
        clock.threads, clock.rows = pool.planned * plan.threads, sum(s.rows for s in todo)

        def live() -> dict[str, Fact]:
            pool.look()
            return {"actors": pool.alive, "actors_planned": pool.planned}

        following = metrics.follow_scoring(balance, pool, clock)
        with step(f"score {day}", clock.rows, live) as progress, following:
            say(where)
            texts = [task.text for task in todo]
            for record in clock.waiting(scorer.score(run.job, day, texts, plan)):
                balance.merge(compaction.add(record))
                clock.actors.update(record["stages"])
                progress.advance(
                    record["rows"],
                    "",
                    flags=balance.flagged,
                    quarantined=balance.quarantined,
                    **slowest(clock.actors),
                )
        seconds = time.monotonic() - began
        receipt = _finish(run, balance, table, seen, journal, clock, pool, seconds)
        metrics.end_day(receipt.status == "committed")
        if show_profile:
            say(clock.profile().table())
        return receipt


def open_run(spec: Spec, day: str, output: Store) -> Run:
    """Champion, threshold and snapshot of a day, checked against each other."""
    champion = load_champion(spec, Registry(output.child(REGISTRY)))
    (taken,) = input_rows.take_snapshots(spec, spec.input.uri, [day])
    if not taken.files:
        files = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected)
        raise Refusal(f"no file of {day} in {spec.input.uri} can be read: {files or 'it has none'}")
    spec = spec.without_answers(taken.schema.names)
    check.check(spec, taken.schema).refuse()
    encoder = champion.bundle.encoder
    encoder.check_schema(taken.schema)
    needed = (*encoder.required, *spec.roles.flagged)
    if drifts := find_drift(taken, needed):
        raise Refusal("\n".join(map(str, drifts)))
    entry, bundle, threshold = champion.entry, champion.bundle, champion.threshold
    return Run(spec, day, entry, bundle, threshold, taken, output)


def flag_table(run: Run) -> LakeTable:
    schema = flag_schema(run.snapshot.schema, run.spec.roles)
    return LakeTable(run.output.child(FLAGS), schema, FLAGS)


def _need_create_once(output: Store, single_writer: bool) -> None:
    if single_writer or output.creates_once():
        return
    raise Refusal(
        f"the store of {output.uri} has no conditional PUT (If-None-Match): two runs of one day "
        "could both commit. Use a store that has it, or pass --single-writer if nothing else "
        "ever writes there"
    )


def _facts(run: Run) -> dict[str, Any]:
    """What the plan says of the run, beside its tasks."""
    return {
        "watch": run.spec.name,
        "day": run.day,
        "snapshot": run.snapshot.digest,
        "bundle": run.bundle.id,
        "threshold": run.threshold.id,
    }


def _finish(
    run: Run,
    balance: Balance,
    table: LakeTable,
    seen: dict[str, int],
    journal: Journal,
    clock: Clock,
    pool: Pool,
    seconds: float,
) -> Receipt:
    """Balance the books, apply the gates, commit, write the run card."""
    balance.check()
    verdicts = gates.judge(run.spec.gates, run.snapshot, balance, table.recent_rows(run.day))
    passed = all(gate.passed for gate in verdicts)
    with clock("commit"):
        version = _commit(run, balance, table, seen) if passed else None
    times = clock.started, datetime.now(UTC), seconds
    with clock("card"):
        card = run_card.write(run, balance, verdicts, version, times, clock.profile(), pool)
    receipt = _receipt(run, balance, verdicts, version, seconds, card, pool)
    journal.write_receipt(receipt.to_document())
    return receipt


def _commits_so_far(spec: Spec, output: Store, day: str) -> dict[str, int]:
    """How often the day was committed, of each table that the run will commit."""
    names = [QUARANTINE, FLAGS, *([SCORES] if spec.output.scores == "all" else [])]
    return {name: read_commit_counter(output.child(name), day) for name in names}


def _commit(run: Run, balance: Balance, table: LakeTable, seen: dict[str, int]) -> int:
    """The side tables first, then the flags, whose commit is the one that counts. Each is refused
    where another run has committed the day meanwhile, so the tables are of one run."""
    facts = {"bundle": run.bundle.id, "threshold": run.threshold.id, "rows": str(balance.rows)}
    facts["champion"] = str(run.champion.number)
    if run.key_id:
        facts["hmac_key"] = run.key_id
    commit = Commit(run.day, run.run_id, run.snapshot.day_digest, facts)
    sides = [(QUARANTINE, QUARANTINE_SCHEMA, balance.shards("quarantine_shards"))]
    if run.spec.output.scores == "all":
        schema = score_schema(run.snapshot.schema, run.spec.roles)
        sides.append((SCORES, schema, balance.shards("score_shards")))
    for name, schema, shards in sides:
        side = LakeTable(run.output.child(name), schema, name)
        files = [*shards, *_rejected(run, name)]
        side.commit(commit, files, seen[name])
    return table.commit(commit, balance.shards("shards"), seen[FLAGS])


def _rejected(run: Run, table: str) -> list[Any]:
    """A quarantine shard that names the files which could not be read at all."""
    if table != QUARANTINE or not run.snapshot.rejected:
        return []
    rows = [
        {
            "file": file.key,
            "row": None,
            "column": "",
            "rule": file.rule,
            "message": file.message,
            "run_id": run.run_id,
        }
        for file in run.snapshot.rejected
    ]
    whole = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    key = shard_key(run.day, f"{run.run_id}-files-0")
    return [write_shard(run.output.child(QUARANTINE), key, whole)]


def _receipt(
    run: Run,
    balance: Balance,
    verdicts: list[Gate],
    version: int | None,
    seconds: float,
    card: str,
    pool: Pool,
) -> Receipt:
    return Receipt(
        watch=run.spec.name,
        day=run.day,
        run_id=run.run_id,
        status="refused" if version is None else "committed",
        already=False,
        rows=balance.rows,
        filtered=balance.filtered,
        scored=balance.scored,
        quarantined=balance.quarantined,
        flagged=balance.flagged,
        rejected_files=len(run.snapshot.rejected),
        seconds=round(seconds, 3),
        rows_per_second=round(balance.rows / max(seconds, 1e-9)),
        table_version=version,
        card=card,
        bundle=run.bundle.id,
        threshold=run.threshold.id,
        failed_gates=[f"{g.name}: {g.message}" for g in verdicts if not g.passed],
        warnings=[*balance.warnings(), *pool.warnings()],
    )


def _already(run: Run) -> Receipt:
    """The receipt of a run that had been committed: it is read back, not made up."""
    stored = Journal(run.output.child(RUNS), run.run_id).read_receipt()
    if stored is None or stored["status"] != "committed":
        # The driver died between the commit and the card: the table is what counts.
        table = flag_table(run)
        stored = asdict(
            Receipt(
                watch=run.spec.name,
                day=run.day,
                run_id=run.run_id,
                status="committed",
                already=True,
                rows=run.snapshot.rows,
                filtered=0,
                scored=0,
                quarantined=0,
                flagged=table.rows(run.day),
                rejected_files=len(run.snapshot.rejected),
                seconds=0.0,
                rows_per_second=0.0,
                table_version=table.version(),
                card=None,
                bundle=run.bundle.id,
                threshold=run.threshold.id,
            )
        )
    return Receipt(**{**stored, "already": True})
