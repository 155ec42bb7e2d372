"""The tasks of one or more days in one stream through one pool of workers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from cluster.lake.output.journal import Journal
from cluster.lake.storage.opening import open_store
from cluster.scoring.receipt import Receipt
from cluster.scoring.scorer import Scorer
from cluster.splits.engine import Engine, Pool
from jobs.monitoring.live import LiveMetrics
from jobs.report.profile import WAIT, Clock, find_slowest
from jobs.scoring.commit import OutputTables
from jobs.scoring.plan import Work
from jobs.scoring.run import Run
from jobs.terminal.console import Fact, say, step

Answers = Iterator[tuple[str, Receipt]]


@dataclass
class DayWork:
    """A day that is being scored."""

    run: Run
    journal: Journal
    work: Work
    tables: OutputTables
    commits: dict[str, int]  # of the day, in each table, from before the run's snapshot
    clock: Clock
    turn: float = field(default_factory=time.monotonic)  # when it came
    early: list[Receipt] = field(default_factory=list)  # from before its turn

    def measure_seconds(self) -> float:
        """Wall seconds since its turn; at least its share of the time of all threads, since workers
        begin its tasks while the day before is finished."""
        busy = sum(self.clock.actors.values()) / max(1, self.clock.threads)
        return max(time.monotonic() - self.turn, busy)


def stream_days(
    engine: Engine, days: Sequence[DayWork], metrics: LiveMetrics
) -> Iterator[tuple[DayWork, Pool]]:
    """Score the tasks to do of days with one output and one bundle. Each day is yielded, in their
    order, when its last task is in its books; meanwhile the workers go on with the next."""
    tasks = [(one.run.day, task.text) for one in days for task in one.work.todo]
    remote = any(one.run.output.remote or open_store(one.run.snapshot.uri).remote for one in days)
    largest = max(one.work.largest_split for one in days)
    plan = engine.plan_actors(days[0].run.demand(largest), remote, gpus=bool(tasks))
    pool = engine.watch(plan, len(tasks))
    waiting = {one.run.day: one for one in days}
    jobs = [one.run.job for one in days]
    with closing(engine.stream(tasks, Scorer, (jobs,), plan)) as answers:  # type: ignore[type-var]
        for one in days:
            one.clock.resume()
            one.turn = time.monotonic()
            one.clock.threads, one.clock.rows = pool.planned * plan.threads, one.work.rows
            _follow(one, waiting, answers, pool, metrics)
            yield one, pool


def _follow(
    one: DayWork, waiting: dict[str, DayWork], answers: Answers, pool: Pool, metrics: LiveMetrics
) -> None:
    """Add the receipts of the day to its books until it has all; keep those of later days."""
    books, clock = one.work.books, one.clock
    if done := len(books.tasks):
        say(f"resuming run {one.run.run_id}: {done:,} of {books.planned.tasks:,} tasks are done")

    def live() -> dict[str, Fact]:
        pool.look()
        return {"actors": pool.alive, "actors_planned": pool.planned}

    with (
        step(f"score {one.run.day}", one.work.rows, live) as progress,
        metrics.follow_scoring(books, pool, clock),
    ):
        for receipt in _take(one, waiting, answers):
            one.work.add(receipt)
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


def _take(one: DayWork, waiting: dict[str, DayWork], answers: Answers) -> Iterator[Receipt]:
    """The receipts of the day's tasks, as they come."""
    for _ in one.work.todo:
        while not one.early:
            with one.clock(WAIT):
                answered = next(answers, None)
            if answered is None:  # the books say which task has no answer
                return
            day, receipt = answered
            waiting[day].early.append(receipt)
        yield one.early.pop()
