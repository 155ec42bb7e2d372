"""A split is judged only by deaths of a process that had begun no other, while its parent lived."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input.splits import Split, Task
from cluster.lake.output.journal import Journal
from cluster.lake.storage.opening import open_store
from cluster.scoring.apart import PROOFS, ProcessLost, Room, TaskTrial, run_in_process
from cluster.scoring.receipt import Receipt
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample
from models.refusal import Refusal
from models.scores.histogram import ScoreHistogram

SHARED = 2


class DriverKilled(BaseException):
    """The whole driver is gone: nothing of it runs on."""


def task_of(splits: int) -> Task:
    every = (Split(str(n), f"part-{n}", "", (0,), 0, 0, 1, 1) for n in range(splits))
    return Task("t", tuple(every))


def answered(attempt: int) -> Receipt:
    return Receipt("t", attempt, Counts(), ScoreHistogram(), KeySample(), {}, (), {}, {})


class Machine:
    """Begins the splits in order, and dies as it is told."""

    def __init__(self, journal: Journal, poison: Collection[int] = (), kills: int = 0) -> None:
        self.journal, self.poison, self.kills = journal, poison, kills
        self.scored: list[int] = []

    def run(self, attempt: int, places: Collection[int], record: bool) -> Receipt:
        for place in places:
            self.journal.begin_step("t", attempt, place)
            if self.kills:
                self.kills -= 1
                raise DriverKilled
            if place in self.poison:
                raise ProcessLost
        self.scored = list(places)
        return answered(attempt)

    def give_command(self, driver: str, task: Task) -> None:
        attempt = self.journal.begin_attempt("t", driver)
        TaskTrial(self.journal, driver, task, SHARED, self.run).answer(attempt)


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_those_are_left_out_that_die_alone_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    splits = data.draw(st.integers(1, 6))
    poison = data.draw(st.sets(st.integers(0, splits - 1)))
    kills = data.draw(st.integers(0, 8))
    journal = Journal(open_store(str(tmp_path_factory.mktemp("runs"))), "run")
    for driver in range(SHARED):
        journal.begin_attempt("t", f"earlier {driver}")
    machine = Machine(journal, poison, kills)
    for command in range(kills + 1):
        try:
            machine.give_command(f"driver {command}", task_of(splits))
            break
        except DriverKilled:
            continue
    assert machine.scored == [place for place in range(splits) if place not in poison]


def test_the_death_of_a_worker_counts_while_its_driver_lives(tmp_path: Path) -> None:
    journal = Journal(open_store(str(tmp_path)), "run")
    for _ in range(SHARED):
        journal.begin_attempt("t", "driver")
    machine = Machine(journal, kills=PROOFS)
    for _ in range(PROOFS):
        with pytest.raises(DriverKilled):
            machine.give_command("driver", task_of(1))
    machine.give_command("driver", task_of(1))
    assert machine.scored == []


def test_a_task_that_hung_once_is_tried_apart_from_its_second_attempt_on(tmp_path: Path) -> None:
    journal = Journal(open_store(str(tmp_path)), "run")
    journal.begin_attempt("t", "the driver that gave up")
    machine = Machine(journal, {1})
    attempt = journal.begin_attempt("t", "driver")
    TaskTrial(journal, "driver", task_of(3), 4, machine.run).answer(attempt)
    assert machine.scored == [0, 2]
    attempts = journal.begin_attempt("t", "another")
    TaskTrial(journal, "another", task_of(3), 4, machine.run).answer(attempts)
    assert machine.scored == [0, 2]
    assert attempts == 2 + PROOFS + 2, "what was proven is not tried again"


def test_a_task_whose_splits_die_only_together_fails_the_run(tmp_path: Path) -> None:
    journal = Journal(open_store(str(tmp_path)), "run")
    for _ in range(SHARED):
        journal.begin_attempt("t", "driver")

    class TooSmall(Machine):
        def run(self, attempt: int, places: Collection[int], record: bool) -> Receipt:
            super().run(attempt, places, record)
            if len(places) > 1:
                raise ProcessLost
            return answered(attempt)

    with pytest.raises(Refusal, match=r"part-1 died or hung 4 times, and not of one split"):
        TooSmall(journal).give_command("driver", task_of(2))


def look(made: dict[str, str], more: str) -> tuple[str, str, int]:
    return made["name"], more, os.getppid()


def die(*_: object) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(*_: object) -> Any:
    raise Refusal("no such column")


def test_a_process_of_its_own_answers_refuses_or_dies() -> None:
    made = functools.partial(dict[str, str], name="made")
    assert run_in_process(made, look, 60, "more") == ("made", "more", os.getpid())
    with pytest.raises(Refusal, match="no such column"):
        run_in_process(made, refuse, 60)
    with pytest.raises(Refusal, match="no such column"):
        run_in_process(refuse, look, 60, "never")
    with pytest.raises(ProcessLost, match="it died"):
        run_in_process(made, die, 60)
    with pytest.raises(ProcessLost, match="it died"):
        run_in_process(die, look, 60, "never")


def test_a_process_that_does_not_answer_is_ended() -> None:
    with pytest.raises(ProcessLost, match=r"it did not answer for 0\.1 s"):
        run_in_process(dict, wait_for_ever, 0.1)
    assert not multiprocessing.active_children()


def test_a_process_of_its_own_ends_with_its_parent() -> None:
    code = (
        "from cluster.scoring.apart import run_in_process\n"
        "from tests.cluster.scoring.test_apart import wait_for_ever\n"
        "if __name__ == '__main__': run_in_process(dict, wait_for_ever, 600)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) != parent.pid
        parent.kill()
        assert parent.stdout.read() == ""  # this ends when the last process that holds it ends


def wait_for_ever(_: object) -> None:
    print(os.getpid(), flush=True)
    threading.Event().wait()


def test_who_is_alone_waits_for_the_others_and_keeps_them_out() -> None:
    room, order = Room(), list[str]()
    inside, leave = threading.Event(), threading.Event()

    def share(name: str) -> None:
        with room.shared():
            order.append(name)
            inside.set()
            assert leave.wait(60)

    def take() -> None:
        with room.alone():
            order.append("alone")

    first = threading.Thread(target=share, args=("first",))
    first.start()
    assert inside.wait(60)
    alone = threading.Thread(target=take)
    alone.start()
    while not room._taken:
        alone.join(0.001)
    late = threading.Thread(target=share, args=("late",))
    late.start()
    leave.set()
    for thread in (first, alone, late):
        thread.join(60)
    assert order == ["first", "alone", "late"]
