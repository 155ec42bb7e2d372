"""Score days: snapshot, splits, scores, books, gates, one commit a day, run card."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

from cluster.lake.input.partitions import find_day
from cluster.lake.output.committed import CommittedDays
from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, REGISTRY, RUNS, adopt_types
from cluster.lake.output.table import read_commits, read_schema
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.store import Store
from cluster.splits.engine import Engine, EngineName, Pool
from cluster.splits.opening import open_engine
from jobs import check, input_rows
from jobs.champion import Champion, load_champion, require_newest
from jobs.monitoring.live import LiveMetrics
from jobs.output import open_own_output
from jobs.report import run_card
from jobs.report.profile import Clock
from jobs.scoring import gates
from jobs.scoring.books import Books, RunBooks, UnbalancedError
from jobs.scoring.commit import OutputTables, commit_day
from jobs.scoring.leader import name_leader
from jobs.scoring.lost import find_lost_tasks
from jobs.scoring.plan import Work, open_work
from jobs.scoring.result import Ending, RunResult
from jobs.scoring.run import Run
from jobs.spec.spec import Spec
from jobs.stream import DayWork, stream_days
from jobs.terminal.console import say, warn
from models.masking import LibraryError
from models.refusal import Refusal

# Times that a run scores what something removed, before it says so and ends.
_ROUNDS = 3
# Tasks of one stream, whose plans are in memory: for as many, the start of a pool is a few percent.
_TASKS = 4096
# What fails a day and not those beside it: its input, its store, or a fault of ours.
FAILURES = (Refusal, OSError, LibraryError, UnbalancedError)


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
    ((_, result),) = score_days(
        spec,
        [day],
        address=address,
        engine=engine,
        single_writer=single_writer,
        clock=clock,
        metrics=metrics or LiveMetrics(spec.name, "score"),
    )
    if isinstance(result, Exception):
        raise result
    if show_profile and not result.already:
        say(clock.profile().render_table())
    return result


def score_days(
    spec: Spec,
    days: Sequence[str],
    *,
    metrics: LiveMetrics,
    address: str | None = None,
    engine: EngineName | None = None,
    single_writer: bool = False,
    clock: Clock | None = None,
) -> Iterator[tuple[str, RunResult | Exception]]:
    """Score days like `score`, in one stream over their tasks; each day is committed when it is
    complete. A day that fails, with one of `FAILURES`, gives its error, and the others go on."""
    tables = OutputTables(open_own_output(spec))
    group: list[DayWork] = []
    with _LateEngine(address, engine) as late:
        for day in days:
            known = group[-1].run if group else None
            try:
                opened = _open_day(spec, day, tables, single_writer, clock or Clock(), known, late)
            except FAILURES as error:
                yield day, error
                continue
            if isinstance(opened, RunResult):
                yield day, opened
                continue
            opened.clock.pause()
            tasks = sum(len(one.work.todo) for one in [*group, opened])
            if group and (tasks > _TASKS or opened.run.bundle is not group[0].run.bundle):
                group[0].clock.resume()
                yield from _score_group(late.open(group[0].clock), group, metrics)
                group = []
            group.append(opened)
        if group:
            group[0].clock.resume()
            yield from _score_group(late.open(group[0].clock), group, metrics)


class _LateEngine(ExitStack):
    """An engine that is opened for the first day that has to be scored."""

    def __init__(self, address: str | None, asked: EngineName | None) -> None:
        super().__init__()
        self._address, self._asked = address, asked
        self._opened: Engine | None = None

    def open(self, clock: Clock) -> Engine:
        """The engine; the start of one counts as time of the clock's day."""
        if self._opened is None:
            self._opened = self.enter_context(open_engine(self._address, self._asked))
            say(self._opened.line)
        return self._opened


def _open_day(
    spec: Spec,
    day: str,
    tables: OutputTables,
    single_writer: bool,
    clock: Clock,
    known: Run | None,
    late: "_LateEngine",
) -> DayWork | RunResult:
    """What there is to do for a day; the result of a run that was committed before."""
    output = tables.output
    with clock("list"):
        day = find_day(spec.source(), day)
        # Before the snapshot: a run of newer files that commits from here on is not replaced.
        commits = tables.count_commits(day)
        run = open_run(spec, day, output, known)
    require_newest(spec, run.champion, tables.open_flags(run))
    committed = CommittedDays(output)
    for form in run.list_forms():
        if committed.is_run_whole(day, form.run_id):
            recalled = _recall(form, Journal(output.child(RUNS), form.run_id))
            if recalled is not None:
                return recalled
    _require_create_once(output, single_writer)
    run = replace(run, backend=run.bundle.choose_backend(late.open(clock).has_gpus()))
    journal = Journal(output.child(RUNS), run.run_id)
    with clock("plan"):
        journal.reopen()
        return DayWork(run, journal, _open_work(run, journal), tables, commits, clock)


def _score_group(
    engine: Engine, group: Sequence[DayWork], metrics: LiveMetrics, rounds: int = _ROUNDS
) -> Iterator[tuple[str, RunResult | Exception]]:
    """Score days in one stream. What ends the stream may be the fault of any of them: then those
    that are left are scored one by one, and so is a day whose shards were removed meanwhile."""
    left = {one.run.day: one for one in group}
    broken: Exception | None = None
    try:
        for one, pool in stream_days(engine, group, metrics):
            result: RunResult | Exception | None
            try:
                result = _end_day(one, pool, metrics)
            except FAILURES as error:
                result = error
            if result is not None:
                del left[one.run.day]
                yield one.run.day, result
    except FAILURES as error:
        broken = error
    for day, one in left.items():
        if broken is not None and len(group) == 1:
            yield day, broken
        elif broken is None and rounds == 1:
            yield day, _refuse_removals(one)
        else:
            try:
                again = replace(one, work=_open_work(one.run, one.journal), early=[])
            except FAILURES as error:
                yield day, error
            else:
                yield from _score_group(engine, [again], metrics, rounds - (broken is None))


def _end_day(one: DayWork, pool: Pool, metrics: LiveMetrics) -> RunResult | None:
    """Judge and commit a day whose tasks are all done; None where shards of it are gone, whose
    tasks have to be done again."""
    run, clock, books, journal = one.run, one.clock, one.work.books, one.journal
    seconds = one.measure_seconds()
    books.check()
    if lost := find_lost_tasks(run, books):
        warn("scored again", f"the shards of {len(lost):,} tasks are gone from {run.output.uri}")
        journal.discard(lost)
        return None
    one.work.require_settled()
    verdicts = gates.judge(
        run.spec.gates,
        run.snapshot,
        books,
        one.tables.open_flags(run).recent_rows(run.day),
        lambda: name_leader(run, books),
    )
    passed = all(gate.passed for gate in verdicts)
    if passed:
        one.work.record_refused()
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
        version = commit_day(run, books, one.commits, one.tables) if passed else None
    with clock("card"):
        profile = dict(clock.profile().to_document())
        ending = replace(ending, version=version, finished=datetime.now(UTC), profile=profile)
        result = _account_for(run, books, ending, journal)
    metrics.end_day(result.status == "committed")
    return result


def _refuse_removals(one: DayWork) -> Refusal:
    return Refusal(
        f"{one.run.output.uri}: shards of run {one.run.run_id} were removed {_ROUNDS} times while "
        "it ran: expected that nothing but `vacuum` removes files there; nothing was committed"
    )


def finish_card(spec: Spec, day: str) -> RunResult | None:
    """Write the run card of a committed day that has none, from the journal of the run that has
    committed it, whoever is champion now; its result.

    None where another spec, or other days that it looked back on, made that run; or where its
    journal lacks something.
    """
    output = open_own_output(spec)
    commit = CommittedDays(output).find_commit(day)
    if commit is None:
        return None
    opened = open_run(spec, day, output, number=int(commit.facts["champion"]))
    run = next((form for form in opened.list_forms() if form.run_id == commit.run_id), None)
    if run is None:
        return None
    journal = Journal(output.child(RUNS), run.run_id)
    return _recall(run, journal) if journal.is_begun() else None


def open_run(
    spec: Spec, day: str, output: Store, known: Run | None = None, number: int | None = None
) -> Run:
    """Champion, threshold and snapshot of a day, checked against each other. The champion is the
    current one, or one by its `number`; that of a `known` run is taken from there, if it is it."""
    before = Champion(known.champion, known.bundle, known.threshold) if known else None
    champion = load_champion(spec, Registry(output.child(REGISTRY)), before, number)
    (taken,) = input_rows.take_snapshots(spec, spec.input.uri, [day])
    if not taken.files:
        files = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected)
        raise Refusal(f"no file of {day} in {spec.input.uri} can be read: {files or 'it has none'}")
    spec = spec.without_answers(taken.schema.names)
    schema = check.agree_on_schema(spec, [taken], extractor=champion.bundle.extractor)
    known = read_schema(output.child(FLAGS))
    taken = replace(taken, schema=adopt_types(schema, spec.roles, known))
    entry, bundle, threshold = champion.entry, champion.bundle, champion.threshold
    backend = bundle.choose_backend(gpus=False)
    return Run(spec, day, entry, bundle, threshold, taken, output, backend)


def _recall(run: Run, journal: Journal) -> RunResult | None:
    """The result of a run that was committed before, from its journal; None where the journal lacks
    something. A run card that was not written then is written now."""
    stored = journal.read_result()
    if stored is not None and stored["status"] == "committed" and run_card.has_card(run):
        return RunResult.from_document({**stored, "already": True})
    logged = read_commits(run.output.child(FLAGS))
    commit = next((one for one in logged if one.commit.day == run.day), None)
    version = commit.version if commit else OutputTables(run.output).open_flags(run).version()
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


def _require_create_once(output: Store, single_writer: bool) -> None:
    if single_writer or output.creates_once():
        return
    raise Refusal(
        f"the store of {output.uri} has no conditional PUT (If-None-Match): two runs of one day "
        "could both commit. Use a store that has it, or pass --single-writer if nothing else "
        "ever writes there"
    )
