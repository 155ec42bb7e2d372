"""How often a store is asked again, and how many requests of a thread were sent again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from models.refusal import may_pass

# 6 tries with waits of 0.2 s, doubled, with jitter: about 6 s, longer than S3 takes to scale a
# prefix after SlowDown or a store to restart its front end. A longer outage should be seen.
TRIES = 6
WAIT = wait_random_exponential(multiplier=0.2, max=5)


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


# For what delta-rs does in several requests. It sends a request again that fails at once, but not
# one whose answer breaks off: of an S3 that cuts one body in five, hardly a log could be read.
retry_reading = retry(
    retry=retry_if_exception(may_pass),
    wait=WAIT,
    stop=stop_after_attempt(TRIES),
    before_sleep=add_retry,
    reraise=True,
)
