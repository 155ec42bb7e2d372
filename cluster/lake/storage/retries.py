"""How many requests of a thread were sent again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Count:
    """A number that several tasks add to."""

    def __init__(self) -> None:
        self.value = 0


class _ThreadCount(threading.local):
    def __init__(self) -> None:
        self.count = Count()


_thread = _ThreadCount()
_current: ContextVar[Count | None] = ContextVar("retries", default=None)


def thread_retries() -> Count:
    """The count of this thread since it began."""
    return _thread.count


@contextmanager
def count_retries(count: Count) -> Iterator[None]:
    """Add the retries inside the block, and in the tasks that it starts, to the count.

    A store's requests run in another thread than the one that waits for them.
    """
    token = _current.set(count)
    try:
        yield
    finally:
        _current.reset(token)


def add_retry(*_: object) -> None:
    """Count one request that is sent again."""
    if (count := _current.get()) is not None:
        count.value += 1
