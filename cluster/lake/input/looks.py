"""Looks again at what cannot be read, before anything is said of it.

A file can be away for some seconds, a mount can fail, a body can come with a flipped bit. None of
these says anything of the file.
"""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cluster.lake.storage.store import ChangedSinceSnapshot, Missing, StoreFailed
from cluster.lake.storage.witness import witness_bytes
from models.refusal import Refusal
from models.seconds import read_seconds

VARIABLE = "ANOMARAY_LOOK_AGAIN_SECONDS"
# A mount that is mounted again, or a folder that is put back, takes seconds; a file that is away
# for minutes is seen by an operator.
_DEFAULT_S = 120.0
# Of a file that cannot be decoded, however long they take: where each body comes with a flipped bit
# one time in five, one of so many readings is whole.
_LEAST_READINGS = 6
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0

T = TypeVar("T")


class UnsettledInput(OSError):
    """A file that cannot be read now, which may pass.

    `rule` is vanished or changed; unreadable where the disk or its mount has an error; failing
    where the store has; unsteady where each reading got other bytes.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(rule, message)
        self.rule, self.message = rule, message

    def __str__(self) -> str:
        return self.message


class Looks:
    """Reads files, and looks again at those that it cannot read.

    Threads share one patience: it begins with the first trouble, and anew when a trouble has
    passed.
    """

    def __init__(self) -> None:
        self._seconds = read_seconds(VARIABLE, _DEFAULT_S)
        self._until: float | None = None
        self._lock = threading.Lock()

    def read(self, key: str, read: Callable[[], T]) -> T:
        """What `read` returns, which reads the file.

        Raises the `Refusal` of `read` where a second reading got the same bytes: the file itself is
        at fault. Raises `UnsettledInput` where patience has ended.
        """
        readings: set[str] = set()
        look = 0
        while True:
            try:
                if not look:
                    return read()
                with witness_bytes() as witness:
                    value = read()
                self._until = None
                return value
            except (Refusal, OSError) as error:
                rule = _find_rule(error)
                if rule is None:
                    raise
                if rule == "unsteady" and look:
                    if witness.digest in readings:
                        raise
                    readings.add(witness.digest)
                wants_proof = rule == "unsteady" and look < _LEAST_READINGS
                if not self._may_wait() and not wants_proof:
                    raise UnsettledInput(rule, _describe(key, rule, error)) from error
            if rule != "unsteady" or look > 1:
                time.sleep(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**look))
            look += 1

    def _may_wait(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self._until is None:
                self._until = now + self._seconds
            return now < self._until


def _find_rule(error: Exception) -> str | None:
    """The rule of an error that may pass; None of one that does not."""
    if isinstance(error, FileNotFoundError) or getattr(error, "rule", "") == Missing.rule:
        return Missing.rule
    if isinstance(error, ChangedSinceSnapshot):
        return ChangedSinceSnapshot.rule
    if isinstance(error, Refusal):
        return "unsteady"  # of the file's content, if that is what the store has
    if isinstance(error, UnsettledInput | PermissionError):
        return None
    return "failing" if isinstance(error, StoreFailed) else "unreadable"


def _describe(key: str, rule: str, error: Exception) -> str:
    if rule == "unsteady":
        return f"{key} had other bytes each time that it was read, and none could be decoded"
    return str(error) if isinstance(error, Refusal | StoreFailed) else f"{key}: {error}"
