"""A witness of the bytes that are read: two readings with one digest had the same bytes."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Witness:
    """The digest of what was read, range by range."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def note(self, start: int, data: bytes | memoryview) -> None:
        self._digest.update(f"{start} {len(data)} ".encode())
        self._digest.update(data)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


_current: ContextVar[Witness | None] = ContextVar("witness", default=None)


@contextmanager
def witness_bytes() -> Iterator[Witness]:
    """Witness all that files of a store are read of in the block, by this thread."""
    witness = Witness()
    token = _current.set(witness)
    try:
        yield witness
    finally:
        _current.reset(token)


def note_bytes(start: int, data: bytes | memoryview) -> None:
    """Tell the witness of this thread, if it has one."""
    if (witness := _current.get()) is not None:
        witness.note(start, data)
