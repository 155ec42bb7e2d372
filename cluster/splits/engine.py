"""The contract of the two engines: `local` in threads of this process, `ray` on a cluster's actors.

Workers, journal, fence and commit are the same behind both. A run that one engine began may be
finished by the other, and its flags are equal bit for bit on the same kind of device.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan, Demand, WorkerPlan
from cluster.splits.worker import Answer, SplitWorker, TableWorker, Work

EngineName = Literal["local", "ray"]
DaySplit = tuple[str, Split]
OnSplit = Callable[[int], None]  # called with the rows of each split that is done


class Tables(ABC):
    """Tables that a worker makes of splits. They are made anew each time, unless they are kept."""

    @abstractmethod
    def __iter__(self) -> Iterator[pa.Table]: ...

    @abstractmethod
    def keep(self) -> "Tables":
        """The same tables, made once and kept in memory."""

    @abstractmethod
    def count(self) -> int:
        """Their rows."""

    @abstractmethod
    def sum(self, column: str) -> float:
        """The sum of a column; 0.0 without rows."""


class Pool:
    """The actors of a run: how many were planned, how many are alive, the most at once. The local
    engine is one actor."""

    def __init__(self, planned: int) -> None:
        self.planned = planned
        self.alive = self.most = 0

    def look(self) -> None:
        """Count them now. A pool that grew beyond its plan counts as planned larger."""
        self.alive = self.count_alive()
        self.most = max(self.most, self.alive)
        self.planned = max(self.planned, self.most)

    def count_alive(self) -> int:
        return self.planned

    def warnings(self) -> list[str]:
        """A warning where fewer ran than were planned."""
        return []


class Engine(ABC):
    """Runs workers on splits and tasks."""

    name: EngineName
    line: str  # names the engine, and why it was chosen

    @abstractmethod
    def has_gpus(self) -> bool:
        """Whether its pools of actors have GPUs."""

    @abstractmethod
    def plan_actors(
        self, demand: Demand | None = None, remote: bool = False, gpus: bool = False
    ) -> ActorPlan:
        """A pool for this demand. With a `remote` input, threads fetch while others compute. With
        `gpus`, the free memory of the GPUs is asked for. Raises Refusal if memory is short."""

    @abstractmethod
    def plan_readers(self) -> ActorPlan:
        """A pool that reads rows, without GPUs."""

    @abstractmethod
    def plan_workers(self, workers: int, least: int) -> WorkerPlan:
        """Training workers: at most `workers`, and `least` after nodes were lost."""

    @abstractmethod
    def cache_bytes(self) -> int:
        """Memory for kept tables."""

    @abstractmethod
    def watch(self, plan: ActorPlan, tasks: int) -> Pool:
        """The pool of a run that is about to start."""

    @abstractmethod
    def stream(
        self,
        work: Sequence[tuple[str, Work | str]],
        worker: type[SplitWorker[Work, Answer]],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> Iterator[tuple[str, Answer]]:
        """Run `worker(plan, *arguments)` on (day, split or task) pairs; answers come when ready,
        each with its day.

        A split or task may be given as its JSON text, which takes a third of its memory.
        """

    @abstractmethod
    def make_tables(
        self,
        splits: Sequence[DaySplit],
        worker: type[TableWorker],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> Tables:
        """The tables that `worker(plan, *arguments)` makes of the splits, lazily."""
