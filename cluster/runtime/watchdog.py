"""Actors that answer nothing for a long time are ended, so that Ray begins them anew.

An actor can live without working: its process is stopped, a library waits for ever after an
allocation that failed, a mount went away. Ray restarts what dies and waits for what hangs; so what
hangs is made to die, and its tasks are begun again as after any loss.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cluster.runtime.private_ray import POOL_ACTOR, end_actor, list_actors
from models.refusal import Refusal

VARIABLE = "ANOMARAY_STALL_SECONDS"
# A task is one split, seconds of work; a store's slowest answer, with all retries, is minutes.
_DEFAULT_S = 600.0
_LOOKS = 20  # so often is looked while patience lasts

T = TypeVar("T")
_log = logging.getLogger(__name__)


def read_patience(variable: str = VARIABLE, default: float = _DEFAULT_S) -> float:
    """Seconds of an environment variable: those without any answer after which actors are ended,
    `ANOMARAY_STALL_SECONDS`, or another patience."""
    text = os.environ.get(variable, str(default))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise Refusal(f"{variable} is {text!r}: give a number of seconds above 0, or unset it")
    return seconds


def end_when_silent(answers: Iterator[T], end: Callable[[], int], seconds: float) -> Iterator[T]:
    """The answers as they come; `end` is called when none came for so many seconds.

    `end` says how many actors it ended. The time that the caller takes for an answer does not
    count. Patience doubles each time, so that what is slow, and does not hang, is finished.
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
                "nothing came from the actors for %.0f s: ended %d of them, their tasks begin "
                "again (%s changes the patience)",
                self.seconds,
                ended,
                VARIABLE,
            )
            self.seconds *= 2
            if self.since == since:
                self.since = time.monotonic()


def end_pool_actors() -> int:
    """End the actors of this driver's pools, so that Ray starts them again; their number."""
    actors = list_actors(POOL_ACTOR)
    for actor in actors:
        end_actor(actor)
    return len(actors)
