"""The local engine: threads of this process. Nothing to start, and no Ray."""

import ctypes
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cluster.runtime.nodes import find_this_node
from cluster.runtime.resources import (
    ActorPlan,
    Demand,
    WorkerPlan,
    plan_local_readers,
    plan_local_worker,
    plan_threads,
)
from cluster.runtime.watchdog import VARIABLE, find_last_life, read_patience
from cluster.splits.engine import DaySplit, Engine, Pool, Tables
from cluster.splits.worker import Answer, SplitWorker, TableWorker, Work
from models.masking import masked_errors

# Share of the free memory that kept tables may fill.
_CACHE_SHARE = 0.3
# Answers that may wait while a day is ended: small receipts, and about as many days of one task.
_AHEAD = 32
_THREAD = "anomaray-task"
# glibc keeps large blocks: scoring is 1.4 times as fast (docs/decisions/embedded-ray.md). Its
# parameters M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, of malloc.h.
_MALLOC = {-3: 32 << 20, -1: 256 << 20}

Item = TypeVar("Item")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


class LocalEngine(Engine):
    """One worker in this process, called from a thread a CPU."""

    name = "local"

    def __init__(self, why: str) -> None:
        self.line = f"local engine ({why})"
        with suppress(OSError, AttributeError):  # another C library
            for parameter, size in _MALLOC.items():
                ctypes.CDLL(None).mallopt(parameter, size)

    def has_gpus(self) -> bool:
        return find_this_node().gpus > 0

    def plan_actors(
        self, demand: Demand | None = None, remote: bool = False, gpus: bool = False
    ) -> ActorPlan:
        return plan_threads(find_this_node(), demand or Demand(), remote)

    def plan_readers(self) -> ActorPlan:
        return plan_local_readers(find_this_node(ask_gpus=False))

    def plan_workers(self, workers: int, least: int) -> WorkerPlan:
        return plan_local_worker(find_this_node())

    def cache_bytes(self) -> int:
        return int(find_this_node(ask_gpus=False).memory * _CACHE_SHARE)

    def watch(self, plan: ActorPlan, tasks: int) -> Pool:
        return Pool(min(1, tasks))

    def stream(
        self,
        work: Sequence[tuple[str, Work | str]],
        worker: type[SplitWorker[Work, Answer]],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> Iterator[tuple[str, Answer]]:
        if not work:
            return
        one = worker(plan, *arguments)

        def answer(pair: tuple[str, Work | str]) -> tuple[str, Answer]:
            day, task = pair
            if isinstance(task, str):
                task = worker.work_type.from_document(json.loads(task))
            with masked_errors():
                return day, one.answer(day, task)

        yield from map_in_threads(answer, work, plan.threads, ahead=_AHEAD)

    def make_tables(
        self,
        splits: Sequence[DaySplit],
        worker: type[TableWorker],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> Tables:
        return _Made(splits, worker, arguments, plan)


class _InMemory(Tables):
    """Counts and keeps tables in this process."""

    def keep(self) -> Tables:
        return LocalTables(tuple(self))

    def count(self) -> int:
        return sum(table.num_rows for table in self)

    def sum(self, column: str) -> float:
        return float(sum(pc.sum(table.column(column)).as_py() or 0.0 for table in self))


@dataclass(frozen=True)
class LocalTables(_InMemory):
    """Tables that are kept."""

    tables: tuple[pa.Table, ...]

    def __iter__(self) -> Iterator[pa.Table]:
        return iter(self.tables)


@dataclass(frozen=True)
class _Made(_InMemory):
    """Tables in the order of their splits, so that a training is the same each time."""

    splits: Sequence[DaySplit]
    worker: type[TableWorker]
    arguments: tuple[Any, ...]
    plan: ActorPlan

    @cached_property
    def _one(self) -> TableWorker:
        return self.worker(self.plan, *self.arguments)

    def __iter__(self) -> Iterator[pa.Table]:
        one = self._one

        def read(pair: DaySplit) -> pa.Table:
            with masked_errors():
                return one.read(*pair)

        return map_in_threads(read, self.splits, self.plan.threads, in_order=True)


def is_busy() -> bool:
    """Whether threads still run tasks: after an error or an interrupt, they are not waited for."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def map_in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    threads: int,
    in_order: bool = False,
    ahead: int = 1,
) -> Iterator[Result]:
    """Results of `function` when they are ready, or in the order of the items.

    At most `ahead` items more than there are threads are in work or wait to be yielded. The first
    error is raised, and no item is begun after it. Raises ConnectionError if no result comes for
    ANOMARAY_STALL_SECONDS: a thread cannot be ended, but the same command resumes.

    >>> list(map_in_threads(len, ["a", "bc"], threads=2, in_order=True))
    [1, 2]
    """
    todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()
    stopped = threading.Event()

    def work() -> None:
        while (number := todo.get()) is not None and not stopped.is_set():
            try:
                done.put((number, function(items[number]), None))
            except BaseException as error:  # it is raised where the results are read
                stopped.set()
                done.put((number, None, error))

    crew = [
        threading.Thread(target=work, name=_THREAD, daemon=True)
        for _ in range(min(threads, len(items)))
    ]
    for thread in crew:
        thread.start()
    given = min(len(items), threads + ahead)
    for number in range(given):
        todo.put(number)
    early: dict[int, Result | None] = {}
    try:
        for yielded in range(len(items)):
            while not early or (in_order and yielded not in early):
                number, result, error = _wait(done)
                if error is not None:
                    raise error
                early[number] = result
            yield early.pop(yielded if in_order else next(iter(early)))  # type: ignore[misc]
            if given < len(items):
                todo.put(given)
                given += 1
    except BaseException:
        stopped.set()
        raise
    finally:
        for _ in crew:
            todo.put(None)
        if not stopped.is_set():
            for thread in crew:
                thread.join()


def _wait(done: "queue.SimpleQueue[Result]") -> Result:
    seconds, began = read_patience(), time.monotonic()
    while (left := max(began, find_last_life()) + seconds - time.monotonic()) > 0:
        with suppress(queue.Empty):
            return done.get(timeout=left)
    raise ConnectionError(
        f"no task was answered for {seconds:.0f} s: a store or a mount may hang (set the seconds "
        f"with {VARIABLE}); what hangs is tried alone next time"
    )
