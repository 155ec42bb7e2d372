"""What a run is up to, as numbers: read from its own books when somebody asks.

A run costs nothing while nobody asks, and an answer never waits for it.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jobs.monitoring.metric_names import Measure, Sample

if TYPE_CHECKING:  # they bring Ray and torch along, which start beside this
    from cluster.splits.stream import Pool
    from jobs.monitoring.watch_status import Standing
    from jobs.report.profile import Clock
    from jobs.scoring.books import Balance

_BOOKED = {
    Measure.READ_ROWS: "rows",
    Measure.SCORED_ROWS: "scored",
    Measure.FILTERED_ROWS: "filtered",
    Measure.QUARANTINED_ROWS: "quarantined",
    Measure.FLAGS: "flagged",
    Measure.RETRIED_SPLITS: "retried",
    Measure.RESENT_REQUESTS: "resent",
}
# Stages of an actor in which its device computes.
_COMPUTING = ("score", "reasons")

_Counts = dict[tuple[Measure, tuple[str, ...]], float]


class Telemetry:
    """The numbers of one run of a verb. The thread that runs it reports; any thread may ask."""

    def __init__(self, watch: str, verb: str, standing: "Standing | None" = None) -> None:
        """`standing` is what the lake says of the watch; it is looked at when a day has ended."""
        self.watch, self.verb, self.standing = watch, verb, standing
        self.failed = False  # whether something that was asked for was not done
        self._began = time.monotonic()
        self._ended: dict[Measure, float] = {}
        self._scoring: _Scoring | None = None
        self._done: _Counts = {}  # of the days before
        self._swap = threading.Lock()  # a day is in `_scoring` or in `_done`, never in both
        self._training: dict[Measure, float] = {}

    @contextmanager
    def scoring(self, balance: "Balance", pool: "Pool", clock: "Clock") -> Iterator[None]:
        """The block scores a day, and keeps these up to date."""
        self._scoring = _Scoring(balance, pool, clock)
        try:
            yield
        finally:
            with self._swap:
                self._done = _sum(self._done, self._scoring.counts())
                self._scoring = None

    def day_ended(self, committed: bool) -> None:
        """A day's card is in the lake, and its flags are, or a gate refused them."""
        self.failed = self.failed or not committed
        if self.standing:
            self.standing.look()

    def epoch_ended(self, epoch: Mapping[str, float], planned: int) -> None:
        """An entry of a training's history."""
        self._training = {
            Measure.EPOCHS_PLANNED: planned,
            Measure.EPOCHS_DONE: epoch["epoch"],
            Measure.TRAINING_LOSS: epoch["train_loss"],
            Measure.VALIDATION_LOSS: epoch["validation_loss"],
        }

    def end(self) -> None:
        """The verb has ended."""
        self._ended = {
            Measure.RUN_ACTIVE: 0,
            Measure.RUN_DURATION: time.monotonic() - self._began,
            Measure.RUN_END: time.time(),
            Measure.RUN_SUCCESS: float(not self.failed),
        }

    def samples(self) -> list[Sample]:
        """All that is known now."""
        watch = self.watch
        with self._swap:
            scoring = self._scoring
            counts = _sum(self._done, scoring.counts() if scoring else {})
        gauges = {**(scoring.gauges() if scoring else {}), **self._training}
        return [
            *(Sample(measure, (watch, *rest), n) for (measure, rest), n in counts.items()),
            *(Sample(measure, (watch,), value) for measure, value in gauges.items()),
            *(Sample(measure, (watch, self.verb), n) for measure, n in self._run().items()),
            *(self.standing.samples() if self.standing else ()),
        ]

    def _run(self) -> dict[Measure, float]:
        passed = time.monotonic() - self._began
        return self._ended or {Measure.RUN_ACTIVE: 1, Measure.RUN_DURATION: passed}


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
        for measure, name in _BOOKED.items():
            found[measure, ()] = getattr(self.balance, name) - self.before[name]
        found[Measure.READ_BYTES, ()] = round(found[Measure.READ_ROWS, ()] * self.bytes_a_row)
        for stage, seconds in dict(self.clock.actors).items():
            found[Measure.ACTOR_SECONDS, (stage,)] = seconds
        return found

    def gauges(self) -> dict[Measure, float]:
        planned, done = self.balance.planned, len(self.balance.splits)
        return {
            Measure.SPLITS_PLANNED: planned,
            Measure.SPLITS_DONE: done,
            Measure.SPLITS_QUEUED: planned - done,
            Measure.ACTORS_PLANNED: self.pool.planned,
            Measure.ACTORS_RUNNING: self.pool.alive,
            Measure.ACTOR_WAIT: self._waiting(),
        }

    def _waiting(self) -> float:
        """Threads of one actor may compute at once: then it counts as one that never waits."""
        stages = dict(self.clock.actors)
        computing = sum(stages.get(stage, 0.0) for stage in _COMPUTING)
        passed = max(1, self.pool.most) * (time.monotonic() - self.began)
        return max(0.0, 1.0 - computing / max(passed, 1e-9))


def _sum(one: _Counts, other: _Counts) -> _Counts:
    return {key: one.get(key, 0.0) + other.get(key, 0.0) for key in {**one, **other}}
