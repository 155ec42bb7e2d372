"""What a run is up to, as numbers: read from its own books when somebody asks.

A run costs nothing while nobody asks, and an answer never waits for it.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.monitoring.metric_names import Metric, Sample

if TYPE_CHECKING:  # they bring Ray and torch along, which start beside this
    from cluster.splits.stream import Pool
    from jobs.monitoring.watch_status import WatchStatus
    from jobs.report.profile import Clock
    from jobs.scoring.books import Balance

_BOOKED = {
    Metric.READ_ROWS: "rows",
    Metric.SCORED_ROWS: "scored",
    Metric.FILTERED_ROWS: "filtered",
    Metric.QUARANTINED_ROWS: "quarantined",
    Metric.FLAGS: "flagged",
    Metric.RETRIED_SPLITS: "retried",
    Metric.RESENT_REQUESTS: "resent",
}
# Stages of an actor in which its device computes.
_COMPUTING = ("score", "reasons")

_Counts = dict[tuple[Metric, tuple[str, ...]], float]


class LiveMetrics:
    """The numbers of one run of a verb. The thread that runs it reports; any thread may ask."""

    def __init__(self, watch: str, verb: str, status: "WatchStatus | None" = None) -> None:
        """`status` is what the lake says of the watch; it is looked at when a day has ended."""
        self.watch, self.verb, self.status = watch, verb, status
        self.failed = False  # whether something that was asked for was not done
        self._began = time.monotonic()
        self._ended: dict[Metric, float] = {}
        self._scoring: _Scoring | None = None
        self._done: _Counts = {}  # of the days before
        self._swap = threading.Lock()  # a day is in `_scoring` or in `_done`, never in both
        self._training: dict[Metric, float] = {}

    @contextmanager
    def follow_scoring(self, balance: "Balance", pool: "Pool", clock: "Clock") -> Iterator[None]:
        """The block scores a day, and keeps these up to date."""
        self._scoring = _Scoring(balance, pool, clock)
        try:
            yield
        finally:
            with self._swap:
                self._done = _sum(self._done, self._scoring.counts())
                self._scoring = None

    def end_day(self, committed: bool) -> None:
        """A day's card is in the lake, and its flags are, or a gate refused them."""
        self.failed = self.failed or not committed
        if self.status:
            self.status.refresh()

    def record_epoch(self, epoch: Mapping[str, float], planned: int) -> None:
        """An entry of a training's history."""
        self._training = {
            Metric.EPOCHS_PLANNED: planned,
            Metric.EPOCHS_DONE: epoch["epoch"],
            Metric.TRAINING_LOSS: epoch["train_loss"],
            Metric.VALIDATION_LOSS: epoch["validation_loss"],
        }

    def end_run(self) -> None:
        """The verb has ended."""
        self._ended = {
            Metric.RUN_ACTIVE: 0,
            Metric.RUN_DURATION: time.monotonic() - self._began,
            Metric.RUN_END: time.time(),
            Metric.RUN_SUCCESS: float(not self.failed),
        }

    def collect(self) -> list[Sample]:
        """All that is known now."""
        watch = self.watch
        with self._swap:
            scoring = self._scoring
            counts = _sum(self._done, scoring.counts() if scoring else {})
        gauges = {**(scoring.gauges() if scoring else {}), **self._training}
        return [
            *(Sample(metric, (watch, *rest), n) for (metric, rest), n in counts.items()),
            *(Sample(metric, (watch,), value) for metric, value in gauges.items()),
            *(Sample(metric, (watch, self.verb), n) for metric, n in self._run().items()),
            *(self.status.collect() if self.status else ()),
        ]

    def _run(self) -> dict[Metric, float]:
        passed = time.monotonic() - self._began
        return self._ended or {Metric.RUN_ACTIVE: 1, Metric.RUN_DURATION: passed}


class _Scoring:
    """A day that is being scored."""

    def __init__(self, balance: "Balance", pool: "Pool", clock: "Clock") -> None:
        self.balance, self.pool, self.clock = balance, pool, clock
        self.began = time.monotonic()
        self.bytes_a_row = balance.snapshot.bytes / max(1, balance.snapshot.rows)
        # What an earlier process did of this day, and counted.
        self.before = {name: getattr(balance, name) for name in _BOOKED.values()}

    def counts(self) -> _Counts:
        found: _Counts = {}
        for metric, name in _BOOKED.items():
            found[metric, ()] = getattr(self.balance, name) - self.before[name]
        found[Metric.READ_BYTES, ()] = round(found[Metric.READ_ROWS, ()] * self.bytes_a_row)
        for stage, seconds in dict(self.clock.actors).items():
            found[Metric.ACTOR_SECONDS, (stage,)] = seconds
        return found

    def gauges(self) -> dict[Metric, float]:
        planned, done = self.balance.planned, len(self.balance.splits)
        return {
            Metric.SPLITS_PLANNED: planned,
            Metric.SPLITS_DONE: done,
            Metric.SPLITS_QUEUED: planned - done,
            Metric.ACTORS_PLANNED: self.pool.planned,
            Metric.ACTORS_RUNNING: self.pool.alive,
            Metric.ACTOR_WAIT: self._waiting(),
        }

    def _waiting(self) -> float:
        """Threads of one actor may compute at once: then it counts as one that never waits."""
        stages = dict(self.clock.actors)
        computing = sum(stages.get(stage, 0.0) for stage in _COMPUTING)
        passed = max(1, self.pool.most) * (time.monotonic() - self.began)
        return max(0.0, 1.0 - computing / max(passed, 1e-9))


def _sum(one: _Counts, other: _Counts) -> _Counts:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}
