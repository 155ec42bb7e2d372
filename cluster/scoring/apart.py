"""A task that keeps losing its workers, or hangs, is tried apart: in its own process, then split by
split.

The death of that process, while its parent lives, is proof against a split if the process had begun
no other; so is its silence, for which its parent ends it. The death of a driver is proof of
nothing: it may have been killed by a person, or with its node.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec, TypeVar

from cluster.lake.input.splits import Task
from cluster.lake.output.journal import Journal
from cluster.scoring.receipt import Receipt
from models.masking import masked_errors
from models.refusal import Refusal

# Deaths of a split alone before it is judged: the first may be the machine's, which is short of
# memory, or a person's.
PROOFS = 2
# Losses of a task apart that point to none of its splits, before the run fails.
_UNEXPLAINED = 4

P = ParamSpec("P")
T = TypeVar("T")
Made = TypeVar("Made")


class ProcessLost(Exception):
    """A process died, or did not answer in time and was ended."""


class Room:
    """A worker's process: many threads share it, or one has it alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._taken = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._taken)
            self._taken = True
            self._changed.wait_for(lambda: not self._sharing)
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()


# Scores the splits at these places in a process of its own: (attempt, places, whether to record).
# Raises `ProcessLost` where it dies or hangs.
Run = Callable[[int, Collection[int], bool], Receipt]


class TaskTrial:
    """The trial of one task, by a worker of `driver`.

    All that it finds is in the journal, so that another worker goes on from there. Of the first
    `shared` attempts at the task, those that marked no split were made beside other tasks: they
    show nothing.
    """

    def __init__(self, journal: Journal, driver: str, task: Task, shared: int, run: Run) -> None:
        self.journal, self.driver, self.task = journal, driver, task
        self.shared, self.run = shared, run

    def answer(self, attempt: int) -> Receipt:
        """The receipt of the task, without the splits that were proven to stop their process."""
        while True:
            places = self._list_unproven(attempt)
            receipt = self._run(attempt, places, True)
            if receipt is not None:
                return receipt
            if len(places) > 1:
                last = self.journal.read_attempt(self.task.id, attempt).steps[-1:]
                any(self._is_proven(place) for place in dict.fromkeys((*last, *places)))
            attempt = self._begin()

    def _is_proven(self, place: int) -> bool:
        """Try the split alone."""
        return all(self._run(self._begin(), [place], False) is None for _ in range(PROOFS))

    def _begin(self) -> int:
        return self.journal.begin_attempt(self.task.id, self.driver)

    def _run(self, attempt: int, places: Collection[int], record: bool) -> Receipt | None:
        """The receipt; None where the process died or hung."""
        try:
            receipt = self.run(attempt, places, record)
        except ProcessLost:
            self.journal.end_attempt(self.task.id, attempt, died=True)
            return None
        self.journal.end_attempt(self.task.id, attempt, died=False)
        return receipt

    def _list_unproven(self, attempt: int) -> list[int]:
        """Places of the splits that are not proven to stop their process.

        A worker that died under this very driver counts as its process.
        """
        everything = tuple(range(len(self.task.splits)))
        deaths = [0] * len(everything)
        open_cases: list[tuple[int, ...]] = []
        for number in range(1, attempt):
            earlier = self.journal.read_attempt(self.task.id, number)
            if number <= self.shared and not earlier.steps:
                continue
            lost_worker = earlier.died is None and earlier.driver == self.driver
            if not earlier.died and not lost_worker:
                continue
            begun = everything if lost_worker and not earlier.steps else earlier.steps
            if len(begun) == 1:
                deaths[begun[0]] += 1
            elif earlier.driver == self.driver:
                open_cases.append(begun)
        proven = {place for place in everything if deaths[place] >= PROOFS}
        unexplained = sum(proven.isdisjoint(begun[-1:]) for begun in open_cases)
        if unexplained >= _UNEXPLAINED:
            files = ", ".join(sorted({split.key for split in self.task.splits})[:3])
            raise Refusal(
                f"the process that scores {files} died or hung {unexplained} times, and not of one "
                "split alone: expected a process that nobody ends, with enough memory; nothing was "
                "committed, run the same command again"
            )
        return [place for place in everything if place not in proven]


def run_in_process(
    make: Callable[[], Made],
    use: Callable[Concatenate[Made, P], T],
    seconds: float,
    *arguments: P.args,
    **named: P.kwargs,
) -> T:
    """Call `use(make(), *arguments)` in a process of its own, which ends with this one.

    Raises what they raise, and `ProcessLost` where the process dies, or `use` takes longer than
    `seconds`. What `make` takes does not count: it reads nothing of a split.
    """
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_serve, args=(there, make, use, arguments, named))
    process.start()
    there.close()
    try:
        _receive(here)  # it is made
        if not here.poll(seconds):
            raise ProcessLost(f"it did not answer for {seconds:g} s")
        answer: T = _receive(here)
        return answer
    except EOFError:
        raise ProcessLost("it died") from None
    finally:
        process.kill()  # it has nothing left to do, whatever it does
        process.join()
        here.close()


def _receive(connection: Connection) -> Any:
    answer, error = connection.recv()
    if error is not None:
        raise error
    return answer


def _serve(
    parent: Connection,
    make: Callable[[], Any],
    use: Callable[..., Any],
    arguments: tuple[object, ...],
    named: dict[str, object],
) -> None:
    _end_with_parent()
    try:
        with masked_errors():  # its trace would quote the text of the error
            made = make()
            parent.send((None, None))
            answer = use(made, *arguments, **named)
    except Exception as error:
        parent.send((None, error))
    else:
        parent.send((answer, None))


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
