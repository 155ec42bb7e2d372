"""The metrics of a running verb, read from its own counts at each scrape.

They cost the run nothing between scrapes, and a scrape never waits for the run.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.monitoring.metric_names import Metric, Sample

if TYPE_CHECKING:  # these import Ray and torch
    from cluster.splits.engine import Pool
    from jobs.monitoring.watch_status import WatchStatus
    from jobs.report.profile import Clock
    from jobs.scoring.books import RunBooks

_COUNTERS = {
    Metric.READ_ROWS: "rows",
    Metric.SCORED_ROWS: "scored",
    Metric.FILTERED_ROWS: "filtered",
    Metric.QUARANTINED_ROWS: "quarantined",
    Metric.FLAGS: "flagged",
    Metric.RETRIED_TASKS: "retried",
    Metric.RESENT_REQUESTS: "resent",
}
# Stages of an actor that use its device.
_COMPUTING = ("score", "reasons")

_Counts = dict[tuple[Metric, tuple[str, ...]], float]


class LiveMetrics:
    """The metrics of one run of a verb. The thread of the run reports; any thread may collect."""

    def __init__(self, watch: str, verb: str, status: "WatchStatus | None" = None) -> None:
        """`status`, the watch's records in the lake, is refreshed at the end of each day."""
        self.watch, self.verb, self.status = watch, verb, status
        self.failed = False  # whether the verb failed in whole or in part
        self._began = time.monotonic()
        self._ended: dict[Metric, float] = {}
        self._scoring: _Scoring | None = None
        self._done: _Counts = {}  # of the days that have ended
        self._swap = threading.Lock()  # a day is in `_scoring` or in `_done`, never in both
        self._training: dict[Metric, float] = {}
        self._skipped: dict[Metric, float] = {}

    @contextmanager
    def follow_scoring(self, books: "RunBooks", pool: "Pool", clock: "Clock") -> Iterator[None]:
        """Collect from these while the block scores a day."""
        self._scoring = _Scoring(books, pool, clock)
        try:
            yield
        finally:
            with self._swap:
                self._done = _add(self._done, self._scoring.counts())
                self._scoring = None

    def end_day(self, committed: bool) -> None:
        """Record the end of a day: committed, or refused by a gate."""
        self.failed = self.failed or not committed
        if self.status:
            self.status.refresh()

    def record_epoch(self, epoch: Mapping[str, float], planned: int) -> None:
        """Record an epoch, an entry of the training's history, of at most `planned`."""
        self._training = {
            Metric.EPOCHS_PLANNED: planned,
            Metric.EPOCHS_DONE: epoch["epoch"],
            Metric.TRAINING_LOSS: epoch["train_loss"],
            Metric.VALIDATION_LOSS: epoch["validation_loss"],
        }

    def record_skipped(self, skipped: int, waiting: int, deleted: int) -> None:
        """Record the days that a night leaves out, those of them that no night will score, and the
        committed ones whose files are gone."""
        self._skipped = {
            Metric.DAYS_SKIPPED: skipped,
            Metric.DAYS_WAITING: waiting,
            Metric.DAYS_DELETED: deleted,
        }

    def end_run(self) -> None:
        """Record the end of the verb."""
        self._ended = {
            Metric.RUN_ACTIVE: 0,
            Metric.RUN_DURATION: time.monotonic() - self._began,
            Metric.RUN_END: time.time(),
            Metric.RUN_SUCCESS: float(not self.failed),
        }

    def collect(self) -> list[Sample]:
        """The current samples."""
        watch = self.watch
        with self._swap:
            scoring = self._scoring
            counts = _add(self._done, scoring.counts() if scoring else {})
        gauges = {**(scoring.gauges() if scoring else {}), **self._training, **self._skipped}
        return [
            *(Sample(metric, (watch, *rest), n) for (metric, rest), n in counts.items()),
            *(Sample(metric, (watch,), value) for metric, value in gauges.items()),
            *(Sample(metric, (watch, self.verb), n) for metric, n in self._run_gauges().items()),
            *(self.status.collect() if self.status else ()),
        ]

    def _run_gauges(self) -> dict[Metric, float]:
        passed = time.monotonic() - self._began
        return self._ended or {Metric.RUN_ACTIVE: 1, Metric.RUN_DURATION: passed}


class _Scoring:
    """The day that is being scored."""

    def __init__(self, books: "RunBooks", pool: "Pool", clock: "Clock") -> None:
        self.books, self.pool, self.clock = books, pool, clock
        self.began = time.monotonic()
        self.bytes_a_row = books.snapshot.bytes / max(1, books.snapshot.rows)
        self.before = books.counts  # of an earlier process that scored a part of this day

    def counts(self) -> _Counts:
        found: _Counts = {}
        counts = self.books.counts
        for metric, name in _COUNTERS.items():
            found[metric, ()] = getattr(counts, name) - getattr(self.before, name)
        found[Metric.READ_BYTES, ()] = round(found[Metric.READ_ROWS, ()] * self.bytes_a_row)
        for stage, seconds in dict(self.clock.actors).items():
            found[Metric.ACTOR_SECONDS, (stage,)] = seconds
        return found

    def gauges(self) -> dict[Metric, float]:
        planned, done = self.books.planned, self.books.counts
        return {
            Metric.SPLITS_PLANNED: planned.splits,
            Metric.SPLITS_DONE: done.splits,
            Metric.TASKS_PLANNED: planned.tasks,
            Metric.TASKS_DONE: done.tasks,
            Metric.TASKS_QUEUED: planned.tasks - done.tasks,
            Metric.ACTORS_PLANNED: self.pool.planned,
            Metric.ACTORS_RUNNING: self.pool.alive,
            Metric.ACTOR_WAIT: self._wait_ratio(),
        }

    def _wait_ratio(self) -> float:
        """Share of the actors' time without computing; parallel threads can make it too low."""
        stages = dict(self.clock.actors)
        computing = sum(stages.get(stage, 0.0) for stage in _COMPUTING)
        passed = max(1, self.pool.most) * (time.monotonic() - self.began)
        return max(0.0, 1.0 - computing / max(passed, 1e-9))


def _add(one: _Counts, other: _Counts) -> _Counts:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}
