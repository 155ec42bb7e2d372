"""Actors that hang: who is ended, when, and what the setting may be."""

import queue
import time
from collections.abc import Iterator

import pytest

from cluster.runtime import watchdog
from models.refusal import Refusal


def test_the_actors_are_ended_when_no_answer_comes() -> None:
    answers: queue.Queue[int] = queue.Queue()
    ended: list[float] = []

    def end() -> int:
        ended.append(time.monotonic())
        answers.put(7)  # the restarted actor answers
        return 1

    began = time.monotonic()
    assert next(watchdog.end_when_silent(iter(answers.get, None), end, 0.2)) == 7
    assert len(ended) == 1
    assert ended[0] - began >= 0.2


def test_patience_doubles_so_that_slow_work_is_finished() -> None:
    answers: queue.Queue[int] = queue.Queue()
    ended: list[float] = []

    def end() -> int:
        ended.append(time.monotonic())
        if len(ended) == 3:
            answers.put(7)
        return 1

    assert next(watchdog.end_when_silent(iter(answers.get, None), end, 0.1)) == 7
    first, second, third = ended
    assert second - first >= 0.2
    assert third - second >= 0.4


def test_the_time_that_the_caller_takes_does_not_count() -> None:
    answers = watchdog.end_when_silent(iter([1, 2]), lambda: 0, 60)
    assert next(answers) == 1
    watch = answers.gi_frame.f_locals["watch"]  # type: ignore[attr-defined]
    assert watch.since is None
    assert list(answers) == [2]


def test_the_watch_ends_with_the_answers_and_with_an_error() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the store is gone")

    answers = watchdog.end_when_silent(failing(), lambda: 0, 60)
    assert next(answers) == 1
    watch = answers.gi_frame.f_locals["watch"]  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="gone"):
        next(answers)
    watch.join(10)
    assert not watch.is_alive()


@pytest.mark.parametrize("text", ["", "soon", "0", "-5", "nan", "inf"])
def test_a_patience_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(watchdog.VARIABLE, text)
    with pytest.raises(Refusal, match=watchdog.VARIABLE):
        watchdog.read_patience()


def test_the_default_is_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(watchdog.VARIABLE, raising=False)
    assert watchdog.read_patience() == 600
