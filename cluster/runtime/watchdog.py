"""Ends actors that do not answer for a long time, so that Ray restarts them.

An actor can hang: its process is stopped, a library waits for memory that it cannot get, a mount is
gone. Ray restarts an actor that dies and waits for one that hangs. So hanging actors are ended, and
their tasks run again as after any loss.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from models.seconds import read_seconds

VARIABLE = "ANOMARAY_STALL_SECONDS"
# A task takes seconds; the slowest answer of a store, with all retries, takes minutes.
_DEFAULT_S = 600.0
_LOOKS = 20  # checks within that time

T = TypeVar("T")
_log = logging.getLogger(__name__)


def read_patience(variable: str = VARIABLE, default: float = _DEFAULT_S) -> float:
    """The seconds in an environment variable. By default those after which actors without an
    answer are ended."""
    return read_seconds(variable, default)


_life = 0.0  # when this process last showed it, by the monotonic clock


def show_life() -> None:
    """Tell who waits for an answer of this process that work goes on."""
    global _life
    _life = time.monotonic()


def find_last_life() -> float:
    """When `show_life` was last called, by the monotonic clock."""
    return _life


def end_when_silent(answers: Iterator[T], end: Callable[[], int], seconds: float) -> Iterator[T]:
    """Yield the answers, and call `end` if none comes for some `seconds`.

    `end` returns the number of actors that it ended. The time that the caller spends on an answer
    does not count. The seconds double each time, so that slow actors finish.
    """
    watch = _Watch(end, seconds)
    watch.start()
    try:
        while True:
            watch.since = time.monotonic()
            try:
                answer = next(answers)
            except StopIteration:
                return
            watch.since = None
            yield answer
    finally:
        watch.over.set()


class _Watch(threading.Thread):
    def __init__(self, end: Callable[[], int], seconds: float) -> None:
        super().__init__(name="anomaray-stall", daemon=True)
        self.end, self.seconds = end, seconds
        self.since: float | None = None  # when waiting for an answer began
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(self.seconds / _LOOKS):
            since = self.since
            if since is None or time.monotonic() - since < self.seconds:
                continue
            ended = self.end()
            _log.warning(
                "no actor answered for %.0f s: ended %d of them, their tasks run again (set the "
                "seconds with %s)",
                self.seconds,
                ended,
                VARIABLE,
            )
            self.seconds *= 2
            if self.since == since:
                self.since = time.monotonic()
