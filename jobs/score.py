"""Score a day: snapshot, splits, scores, books, gates, one commit, run card."""

import time
from dataclasses import replace
from datetime import UTC, datetime

from cluster.lake.input.partitions import find_day
from cluster.lake.output.committed import CommittedDays
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, REGISTRY, RUNS, adopt_types
from cluster.lake.output.table import read_commits, read_schema
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
from jobs.scoring.books import Books, RunBooks
from jobs.scoring.commit import commit_day, count_commits, open_flags
from jobs.scoring.leader import name_leader
from jobs.scoring.lost import find_lost_tasks
from jobs.scoring.plan import Work, open_work
from jobs.scoring.result import Ending, RunResult
from jobs.scoring.run import Run
from jobs.spec.spec import Spec
from jobs.terminal.console import Fact, say, step, warn
from models.refusal import Refusal

# Times that a run scores what something removed, before it says so and ends.
_ROUNDS = 3


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
        day = find_day(spec.source(), day)
        # Before the snapshot: a run of newer files that commits from here on is not replaced.
        commits = count_commits(output, day)
        run = open_run(spec, day, output)
    flags = open_flags(run)
    require_newest(spec, run.champion, flags)
    journal = Journal(output.child(RUNS), run.run_id)
    if CommittedDays(output).is_run_whole(day, run.run_id):
        recalled = _recall(run, journal)
        if recalled is not None:
            return recalled
    _require_create_once(output, single_writer)
    with clock("plan"):
        journal.reopen()
        work = _open_work(run, journal)
    began = time.monotonic()
    with open_engine(address, engine) as opened:
        say(opened.line)
        work, pool = _score_until_whole(opened, run, work, journal, clock, metrics)
        seconds = time.monotonic() - began
        books = work.books
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
        ending = Ending(
            gates=verdicts,
            version=None,
            started=clock.started,
            finished=datetime.now(UTC),
            seconds=seconds,
            actors=pool.planned,
            most_actors=pool.most,
            warnings=tuple(pool.warnings()),
            profile=dict(clock.profile().to_document()),
        )
        with clock("commit"):
            journal.write_ending(ending.to_document())
            version = commit_day(run, books, commits) if passed else None
        with clock("card"):
            profile = dict(clock.profile().to_document())
            ending = replace(ending, version=version, finished=datetime.now(UTC), profile=profile)
            result = _account_for(run, books, ending, journal)
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


def _recall(run: Run, journal: Journal) -> RunResult | None:
    """The result of a run that was committed before, from its journal; None where the journal lacks
    something. A run card that was not written then is written now."""
    stored = journal.read_result()
    if stored is not None and stored["status"] == "committed" and run_card.has_card(run):
        return RunResult.from_document({**stored, "already": True})
    logged = read_commits(run.output.child(FLAGS))
    commit = next((one for one in logged if one.commit.day == run.day), None)
    version = commit.version if commit else open_flags(run).version()
    if not journal.is_begun():
        return RunResult.without_journal(run, commit.commit.facts if commit else {}, version)
    work, ending = _open_work(run, journal), journal.read_ending()
    if work.todo or ending is None:
        return None
    say(f"{run.day} was committed before; its run card is written from the journal")
    ended = replace(Ending.from_document(ending), version=version)
    return replace(_account_for(run, work.books, ended, journal), already=True)


def _account_for(run: Run, books: RunBooks, ending: Ending, journal: Journal) -> RunResult:
    """Write the run card, then the result: where there is a result, there is a card."""
    result = RunResult.of(run, books, ending, run_card.write(run, books, ending))
    journal.write_result(result.to_document())
    return result


def _open_work(run: Run, journal: Journal) -> Work:
    def find_lost(books: Books) -> set[str]:
        return find_lost_tasks(run, books, verify=True)

    return open_work(run.snapshot, run.facts, journal, find_lost)


def _score_until_whole(
    engine: Engine, run: Run, work: Work, journal: Journal, clock: Clock, metrics: LiveMetrics
) -> tuple[Work, Pool]:
    """Score the tasks to do, and again those whose shards are gone at the end."""
    for _ in range(_ROUNDS):
        pool = _score_tasks(engine, run, work, clock, metrics)
        work.books.check()
        lost = find_lost_tasks(run, work.books)
        if not lost:
            return work, pool
        warn("scored again", f"the shards of {len(lost):,} tasks are gone from {run.output.uri}")
        journal.discard(lost)
        work = _open_work(run, journal)
    raise Refusal(
        f"{run.output.uri}: shards of run {run.run_id} were removed {_ROUNDS} times while it ran: "
        "expected that nothing but `vacuum` removes files there; nothing was committed"
    )


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
