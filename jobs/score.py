"""Score a day: snapshot, splits, scores, books, gates, one commit, run card."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, REGISTRY, RUNS, adopt_types
from cluster.lake.output.table import LakeTable, read_schema
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from cluster.scoring.scorer import Scorer
from cluster.splits.engine import Engine, EngineName, Pool, open_engine
from jobs import check, input_rows
from jobs.champion import load_champion, require_newest
from jobs.monitoring.live import LiveMetrics
from jobs.output import open_own_output
from jobs.report import run_card
from jobs.report.profile import Clock, find_slowest
from jobs.scoring import gates
from jobs.scoring.commit import commit_day, count_commits, open_flags
from jobs.scoring.leader import name_leader
from jobs.scoring.plan import Work, open_work
from jobs.scoring.result import Ending, RunResult
from jobs.scoring.run import Run
from jobs.spec.spec import Spec
from jobs.terminal.console import Fact, say, step
from models.refusal import Refusal


def score(
    spec: Spec,
    day: str,
    *,
    address: str | None = None,
    engine: EngineName | None = None,
    single_writer: bool = False,
    clock: Clock | None = None,
    show_profile: bool = False,
    metrics: LiveMetrics | None = None,
) -> RunResult:
    """Score one day and commit its flags, once; where a gate refuses the run, commit nothing.

    `clock` may have run before, such as while the engine started; its profile is on the run card,
    and with `show_profile` on stderr.
    """
    clock = clock or Clock()
    metrics = metrics or LiveMetrics(spec.name, "score")
    output = open_own_output(spec)
    with clock("list"):
        # Before the snapshot: a run of newer files that commits from here on is not replaced.
        commits = count_commits(spec, output, day)
        run = open_run(spec, day, output)
    flags = open_flags(run)
    require_newest(spec, run.champion, flags)
    if flags.is_run_committed(day, run.run_id):
        return _read_result(run, flags)
    _require_create_once(output, single_writer)
    with clock("plan"):
        journal = Journal(output.child(RUNS), run.run_id)
        work = open_work(run.snapshot, run.facts, journal)
    began = time.monotonic()
    with open_engine(address, engine) as opened:
        say(opened.line)
        pool = _score_tasks(opened, run, work, clock, metrics)
        seconds = time.monotonic() - began
        books = work.books
        books.check()
        work.require_settled()
        verdicts = gates.judge(
            spec.gates,
            run.snapshot,
            books,
            flags.recent_rows(day),
            lambda: name_leader(run, books),
        )
        passed = all(gate.passed for gate in verdicts)
        if passed:
            work.record_refused()
        with clock("commit"):
            version = commit_day(run, books, commits) if passed else None
        ending = Ending(verdicts, version, clock.started, datetime.now(UTC), seconds, pool)
        with clock("card"):
            card = run_card.write(run, books, ending, clock.profile())
        result = RunResult.of(run, books, ending, card)
        journal.write_result(result.to_document())
        metrics.end_day(result.status == "committed")
        if show_profile:
            say(clock.profile().render_table())
        return result


def open_run(spec: Spec, day: str, output: Store) -> Run:
    """Champion, threshold and snapshot of a day, checked against each other."""
    champion = load_champion(spec, Registry(output.child(REGISTRY)))
    (taken,) = input_rows.take_snapshots(spec, spec.input.uri, [day])
    if not taken.files:
        files = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected)
        raise Refusal(f"no file of {day} in {spec.input.uri} can be read: {files or 'it has none'}")
    spec = spec.without_answers(taken.schema.names)
    schema = check.agree_on_schema(spec, [taken], encoder=champion.bundle.encoder)
    known = read_schema(output.child(FLAGS))
    taken = replace(taken, schema=adopt_types(schema, spec.roles, known))
    entry, bundle, threshold = champion.entry, champion.bundle, champion.threshold
    return Run(spec, day, entry, bundle, threshold, taken, output)


def _score_tasks(engine: Engine, run: Run, work: Work, clock: Clock, metrics: LiveMetrics) -> Pool:
    """Hand the tasks to do to the engine, and add their receipts to the books."""
    if done := len(work.books.tasks):
        say(f"resuming run {run.run_id}: {done:,} of {done + len(work.todo):,} tasks are done")
    remote = run.output.remote or open_store(run.snapshot.uri).remote
    plan = engine.plan_actors(run.demand(work.largest_split), remote, gpus=bool(work.todo))
    pool = engine.watch(plan, len(work.todo))
    clock.threads, clock.rows = pool.planned * plan.threads, work.rows

    def live() -> dict[str, Fact]:
        pool.look()
        return {"actors": pool.alive, "actors_planned": pool.planned}

    books = work.books
    with (
        step(f"score {run.day}", work.rows, live) as progress,
        metrics.follow_scoring(books, pool, clock),
    ):
        tasks = [(run.day, task.text) for task in work.todo]
        for receipt in clock.time_waits(engine.stream(tasks, Scorer, (run.job,), plan)):
            work.add(receipt)
            clock.actors.update(receipt.stages)
            progress.advance(
                receipt.counts.rows,
                "",
                tasks=books.counts.tasks,
                tasks_planned=books.planned.tasks,
                flags=books.counts.flagged,
                quarantined=books.counts.quarantined,
                **find_slowest(clock.actors),
            )
    return pool


def _require_create_once(output: Store, single_writer: bool) -> None:
    if single_writer or output.creates_once():
        return
    raise Refusal(
        f"the store of {output.uri} has no conditional PUT (If-None-Match): two runs of one day "
        "could both commit. Use a store that has it, or pass --single-writer if nothing else "
        "ever writes there"
    )


def _read_result(run: Run, flags: LakeTable) -> RunResult:
    """The result of a run that was committed before."""
    stored = Journal(run.output.child(RUNS), run.run_id).read_result()
    if stored is None or stored["status"] != "committed":
        # The driver died between the commit and the card: the table is what counts.
        return RunResult.without_record(run, flags.rows(run.day), flags.version())
    return RunResult.from_document({**stored, "already": True})
