"""Objects by key on a local folder or S3, each with a version that a reader can hold it to.

s3fs does the work on S3 (docs/decisions/object-storage.md).
"""

import io
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import pyarrow as pa

from cluster.lake.storage.witness import note_bytes
from models.refusal import Refusal

# Nothing that is read whole is larger: a shard has the rows of one split, and the plan of a million
# tasks 200 MB.
MOST_BYTES = 1 << 30
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Real lakes have ten folders at most on the way to a file; a walk has to end.
MOST_FOLDERS = 64


class Missing(Refusal):
    """The object does not exist."""

    rule = "vanished"


class ChangedSinceSnapshot(Refusal):
    """The object has another version than the one asked for."""

    rule = "changed"


class DamagedObject(Refusal):
    """The object has other bytes than its own checksum says, each time that it is read."""

    rule = "checksum"


class StoreFailed(OSError):
    """The store gave no answer, or errors, as often as it was asked."""


@dataclass(frozen=True, order=True)
class Object:
    """One stored object; `version` is its ETag on S3, `mtime_ns-size-inode` on a local disk."""

    key: str
    size: int  # bytes
    version: str
    modified: datetime  # UTC


@dataclass(frozen=True, order=True)
class BadName:
    """Something stored under a name that is no key: it cannot be opened, only named."""

    name: str  # printable
    reason: str


@dataclass(frozen=True)
class Listing:
    """What lies in a folder; each part is sorted."""

    objects: tuple[Object, ...] = ()
    folders: tuple[str, ...] = ()  # names of the folders directly in it
    bad: tuple[BadName, ...] = ()


class Store(ABC):
    """A folder or a bucket prefix; keys are relative to it and use `/`.

    A store is a value: it can be pickled and compared, and has no state but its URI.
    """

    remote: ClassVar[bool] = False  # whether reading waits for a network

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and other.uri == self.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    @abstractmethod
    def child(self, key: str) -> "Store":
        """The store at a key of this one."""

    @abstractmethod
    def survey(self, prefix: str = "", *, deep: bool = True) -> Listing:
        """All objects at or below the folder `prefix`; with `deep` False the objects and folders
        directly in it. Empty where it is missing."""

    def list(self, prefix: str = "") -> tuple[Object, ...]:
        """The objects of `survey`: what has a bad name was written by nobody that uses keys."""
        return self.survey(prefix).objects

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the folders directly in `prefix`, sorted."""
        return self.survey(prefix, deep=False).folders

    @abstractmethod
    def stat(self, key: str) -> Object:
        """Size, version and time of one object. Raises `Missing`."""

    @abstractmethod
    def read(self, key: str, most: int = MOST_BYTES) -> bytes:
        """The whole object. Raises `Missing`, and `Refusal` for one of more than `most` bytes."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write the object whole or not at all, over an earlier one. `Refusal` on a full disk."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; False, and no change, where there is one.

        Of several racing creators exactly one gets True. Where the store has no conditional writes
        (`creates_once` is False), this holds for a single writer only.
        """

    def flush(self, *keys: str) -> None:  # noqa: B027 - a store that keeps what it has accepted
        """Make objects that others have written last through a loss of power; `put` and `create` do
        it themselves. What is missing is left out."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""

    @abstractmethod
    def open_parquet(self, key: str, version: str | None = None) -> "ReadOnlyFile":
        """A seekable file for `pq.ParquetFile`, held to one version of the object.

        Raises `Missing`; here and at each later read, `ChangedSinceSnapshot`.
        """

    @property
    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """`storage_options` for deltalake at `delta_uri`."""

    @property
    def delta_uri(self) -> str:
        """The URI of this folder for deltalake."""
        return self.uri

    @abstractmethod
    def refuse_links(self, prefix: str = "") -> None:
        """Raise `Refusal` for a link below the folder: deltalake would follow it."""

    @abstractmethod
    def arrow_filesystem(self) -> tuple[Any, str]:
        """The pyarrow file system and the path in it, for Ray Train's storage."""

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except Missing:
            return False
        return True

    def delete_all(self, prefix: str) -> None:
        """Remove every object below the folder `prefix`."""
        for found in self.list(prefix):
            self.delete(found.key)

    def creates_once(self) -> bool:
        """Whether conditional writes work here: tries it on a key, which it removes again."""
        key = f"_probe-{uuid.uuid4().hex}"
        try:
            first = self._create(key, b"first")
            second = self._create(key, b"second")
            return first and not second and self.read(key) == b"first"
        finally:
            self.delete(key)

    @abstractmethod
    def _create(self, key: str, data: bytes) -> bool:
        """`create` by a conditional write, without a check before it."""


def check_key(key: str) -> str:
    """The key, if it cannot lead out of its store. Raises `Refusal` otherwise.

    >>> check_key("day=2026-01-31/part-0.parquet")
    'day=2026-01-31/part-0.parquet'
    """
    if (fault := find_fault(key)) is not None:
        raise Refusal(
            f"key {key!r} is not allowed ({fault}): expected names joined by '/', without '..', "
            "'.', empty parts, backslashes or control characters"
        )
    return key


def find_fault(key: str) -> str | None:
    """Why the text is no key; None for a key."""
    parts = key.split("/")
    if CONTROL.search(key):
        return "a control character"
    if "\\" in key:
        return "a backslash"
    if not all(parts):
        return "an empty part"
    if {".", ".."} & set(parts):
        return "a part '.' or '..'"
    if len(parts) > MOST_FOLDERS:
        return f"deeper than {MOST_FOLDERS} folders"
    if any("\ud800" <= letter <= "\udfff" for letter in key):  # bytes that are no UTF-8
        return "bytes that are no UTF-8"
    return None


def print_name(name: str) -> str:
    """A name in printable letters: everything else is written as an escape, and a long one cut."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return text if len(text) <= 300 else f"{text[:300]}…"


def changed_error(uri: str, key: str, expected: str, found: str) -> ChangedSinceSnapshot:
    return ChangedSinceSnapshot(
        f"{uri}/{key} changed since the snapshot: expected version {expected}, found {found}; "
        "run again to take a new snapshot"
    )


def oversized_error(uri: str, key: str, most: int, found: int) -> Refusal:
    return Refusal(
        f"{uri}/{key}: expected at most {most:,} bytes, found {found:,}; nothing that is read here "
        "is so large: find out who wrote it"
    )


def missing_error(uri: str, key: str) -> Missing:
    return Missing(f"{uri}/{key}: expected an object, found none")


class ReadOnlyFile(io.RawIOBase):
    """A Python file with what `pq.ParquetFile` needs; subclasses say how to read a range."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.length = size
        self._place = 0

    @abstractmethod
    def _read_range(self, start: int, stop: int) -> bytes | memoryview: ...

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Fetch the byte ranges [start, stop), which will be read. Does nothing on a local disk."""

    def verify(self, most: int) -> bool:
        """Whether all bytes that are read from here on are those of which the store has a digest.

        It may fetch the whole file, of at most `most` bytes. Raises `DamagedObject`.
        """
        return False  # a disk has no digests

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def size(self) -> int:
        return self.length

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.length}[whence]
        self._place = max(0, base + offset)
        return self._place

    def read(self, size: int = -1) -> bytes:
        return bytes(self._advance(size))

    def read_buffer(self, size: int = -1) -> pa.Buffer:
        """`read` without a copy of bytes that were fetched before; pyarrow prefers it."""
        return pa.py_buffer(self._advance(size))

    def _advance(self, size: int | None) -> bytes | memoryview:
        stop = self.length if size is None or size < 0 else min(self.length, self._place + size)
        if stop <= self._place:
            return b""
        start, self._place = self._place, stop
        data = self._read_range(start, stop)
        note_bytes(start, data)
        return data
