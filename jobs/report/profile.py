"""Where the time of a run went: seconds by stage of the driver, and of the actors' threads."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table

from cluster.splits.stages import Stages
from jobs.report.document import ProfileFacts

WAIT = "wait"  # of the driver, for receipts
IDLE = "idle"  # of the actors' threads: without a task, while Ray starts, while the driver commits
OTHER = "other"  # of the driver: in no stage

# In the order of a run.
DRIVER_STAGES = ("start", "list", "plan", WAIT, "commit", "card")
ACTOR_STAGES = (
    "list",
    "open",
    "read",
    "encode",
    "copy",
    "score",
    "filter",
    "reasons",
    "write",
    "record",
)


@dataclass(frozen=True)
class Profile:
    """Seconds by stage; those of the actors are sums over all their threads."""

    seconds: float  # of the wall
    threads: int  # of all actors together
    rows: int  # that these actors read
    driver: Mapping[str, float]
    actors: Mapping[str, float]

    @property
    def driver_whole(self) -> dict[str, float]:
        """The driver's stages and `other`; together they are the wall time."""
        other = max(0.0, self.seconds - sum(self.driver.values()))
        return _sort_stages(self.driver, DRIVER_STAGES) | {OTHER: other}

    @property
    def actors_whole(self) -> dict[str, float]:
        """The actors' stages and `idle`; together they are threads times wall time. Empty without
        stages."""
        if not self.actors:
            return {}
        idle = max(0.0, self.threads * self.seconds - sum(self.actors.values()))
        return _sort_stages(self.actors, ACTOR_STAGES) | {IDLE: idle}

    def to_document(self) -> ProfileFacts:
        return {
            "seconds": round(self.seconds, 3),
            "threads": self.threads,
            "rows": self.rows,
            "driver": {stage: round(s, 3) for stage, s in self.driver_whole.items()},
            "actors": {stage: round(s, 3) for stage, s in self.actors_whole.items()},
        }

    def render_table(self) -> Table:
        """The profile for a terminal: the driver's stages, then the actors'."""
        table = Table(
            title=f"where the time went: {self.seconds:,.1f} s",
            title_justify="left",
        )
        table.add_column("stage")
        for name in ("seconds", "share", "rows/s"):
            table.add_column(name, justify="right")
        self._add(table, "driver", self.driver_whole, 0)
        if self.actors:
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
            self._add(table, f"actors, {threads}", self.actors_whole, self.rows)
        return table

    def _add(self, table: Table, title: str, stages: Mapping[str, float], rows: int) -> None:
        """Add a section; `rows` is 0 for stages that do not handle rows."""
        whole = sum(stages.values())
        table.add_section()
        table.add_row(f"[b]{title}[/]", f"[b]{whole:,.2f}[/]", "", "")
        for stage, seconds in stages.items():
            share = f"{seconds / whole:.1%}" if whole else "–"
            rate = f"{rows / seconds:,.0f}" if rows and seconds and stage != IDLE else ""
            table.add_row(f"  {stage}", f"{seconds:,.2f}", share, rate)


class Clock(Stages):
    """Measures the driver's stages from its creation, and collects the stages of the actors."""

    def __init__(self) -> None:
        super().__init__()
        self.started = datetime.now(UTC)
        self._started = time.perf_counter()
        self._paused: float | None = None
        self.threads = self.rows = 0  # of all actors together, and the rows that they are to read
        self.actors: Counter[str] = Counter()  # their seconds by stage

    @property
    def elapsed(self) -> float:
        now = time.perf_counter() if self._paused is None else self._paused
        return now - self._started

    def pause(self) -> None:
        """Stop while the driver works on other days; `resume` goes on."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        if self._paused is not None:
            self._started += time.perf_counter() - self._paused
            self._paused = None

    def profile(self) -> Profile:
        """The profile up to now."""
        return Profile(self.elapsed, self.threads, self.rows, dict(self.seconds), dict(self.actors))


def find_slowest(stages: Mapping[str, float]) -> dict[str, str | float]:
    """The stage with the largest share of the time, as facts for `Step.advance`."""
    whole = sum(stages.values())
    if not whole:
        return {}
    stage = max(stages, key=lambda name: stages[name])
    return {"slowest": stage, "slowest_share": round(stages[stage] / whole, 3)}


def _sort_stages(stages: Mapping[str, float], order: tuple[str, ...]) -> dict[str, float]:
    """The stages in this order, then those that it does not name."""
    names = [*filter(stages.__contains__, order), *(n for n in stages if n not in order)]
    return {name: stages[name] for name in names}
