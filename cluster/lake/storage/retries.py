"""How many requests of a thread had to be sent again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Count:
    """A number that the tasks of one piece of work add to."""

    def __init__(self) -> None:
        self.value = 0


class _Mine(threading.local):
    def __init__(self) -> None:
        self.count = Count()


_mine = _Mine()
_current: ContextVar[Count | None] = ContextVar("retries", default=None)


def thread_retries() -> Count:
    """The count of this thread, since it began."""
    return _mine.count


@contextmanager
def count_retries(count: Count) -> Iterator[None]:
    """What is sent again inside the block, and in the tasks that it starts, adds to the count.

    A store's requests run in another thread than the one that waits for them.
    """
    token = _current.set(count)
    try:
        yield
    finally:
        _current.reset(token)


def add_retry(*_: object) -> None:
    """One request is sent again."""
    if (count := _current.get()) is not None:
        count.value += 1
