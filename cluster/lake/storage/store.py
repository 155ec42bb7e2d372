"""One way to open `file://` and `s3://`: whole objects, create-once, versions that can be held to.

Which library does what, by measurement (moto and `rclone serve s3` on loopback, two cores; medians
of 5 to 30 runs, in ms):

    operation                                   s3fs    pyarrow.fs
    list 300 objects                              64        40     but without the ETag: s3fs
    put 100 bytes                                5.3      10.5     one request against three: s3fs
    put 8 MB                                      36        78     s3fs
    create once (If-None-Match)                  4.1         -     only s3fs
    read 100 bytes                               4.5       5.9     s3fs
    read 111 MB, one request                     229       208     but no If-Match: s3fs
    4 row groups, 10 of 20 columns               697      2828     326 by `RangedFile`

So s3fs does everything here, its caches and its own retries switched off; pyarrow.fs is only handed
to Ray Train, which wants a pyarrow file system (`Store.arrow`). Endpoint, region and credentials
come from the standard AWS environment and profile, and from nowhere else.
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

from models.refusal import Refusal

CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Missing(Refusal):
    """There is no such object."""

    rule = "vanished"


class ChangedSinceSnapshot(Refusal):
    """The object is there, but is not the version that was asked for."""

    rule = "changed"


@dataclass(frozen=True, order=True)
class Object:
    """One stored object; `version` is its ETag on S3, `mtime_ns-size-inode` on a local disk."""

    key: str
    size: int  # bytes
    version: str
    modified: datetime  # UTC


class Store(ABC):
    """A folder or a bucket prefix; keys are relative to it and use `/`.

    Values: a store can be pickled and compared, and holds no state but its URI.
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
    def list(self, prefix: str = "") -> tuple[Object, ...]:
        """All objects at or below the folder `prefix`, sorted by key; none where it is missing."""

    @abstractmethod
    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """Names of the folders directly in the folder `prefix`, sorted."""

    @abstractmethod
    def stat(self, key: str) -> Object:
        """What is known of one object. Raises `Missing`."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The whole object. Raises `Missing`."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write the object whole or not at all, over what was there. `Refusal` on a full disk."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> bool:
        """Write the object if there is none; False where there is one, which is left as it is.

        One of several racing creators gets True, where the store has conditional writes. Where it
        has none (`creates_once` is False), that holds for a single writer only.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""

    @abstractmethod
    def open_parquet(self, key: str, version: str | None = None) -> Any:
        """A seekable file for `pq.ParquetFile`, held to one version of the object.

        Raises `Missing` and, now or at any later read, `ChangedSinceSnapshot`.
        """

    @property
    @abstractmethod
    def delta_options(self) -> dict[str, str]:
        """`storage_options` for deltalake at `delta_uri`."""

    @property
    def delta_uri(self) -> str:
        """Where deltalake finds this folder."""
        return self.uri

    @abstractmethod
    def arrow(self) -> tuple[Any, str]:
        """The pyarrow file system and the path in it, for Ray Train's storage."""

    def exists(self, key: str) -> bool:
        try:
            self.stat(key)
        except Missing:
            return False
        return True

    def read_unchanged(self, key: str, version: str) -> bytes:
        """The whole object, if it is this version. Raises `Missing`, `ChangedSinceSnapshot`."""
        with self.open_parquet(key, version) as file:
            data: bytes = file.read()
            return data

    def delete_all(self, prefix: str) -> None:
        """Remove every object below the folder `prefix`."""
        for found in self.list(prefix):
            self.delete(found.key)

    def creates_once(self) -> bool:
        """Whether conditional writes work here: tried out, on a key that is removed again."""
        key = f"_probe-{uuid.uuid4().hex}"
        try:
            first = self._create(key, b"first")
            second = self._create(key, b"second")
            return first and not second and self.read(key) == b"first"
        finally:
            self.delete(key)

    @abstractmethod
    def _create(self, key: str, data: bytes) -> bool:
        """`create` by the conditional write alone."""


def check_key(key: str) -> str:
    """The key, if it can only name something inside its store; `Refusal` for any other."""
    parts = key.split("/")
    if CONTROL.search(key) or "\\" in key or not all(parts) or {".", ".."} & set(parts):
        raise Refusal(
            f"key {key!r} is not allowed: expected names joined by '/', without '..', '.', "
            "empty parts, backslashes or control characters"
        )
    return key


def changed(uri: str, key: str, expected: str, found: str) -> ChangedSinceSnapshot:
    return ChangedSinceSnapshot(
        f"{uri}/{key} changed since the snapshot: expected version {expected}, found {found}; "
        "run again to take a new snapshot"
    )


def missing(uri: str, key: str) -> Missing:
    return Missing(f"{uri}/{key}: expected an object, found none")


class ReadOnlyFile(io.RawIOBase):
    """What `pq.ParquetFile` needs of a Python file; `_at` reads, and is all that differs."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.length = size
        self._place = 0

    def _at(self, start: int, stop: int) -> bytes | memoryview:
        raise io.UnsupportedOperation("a ReadOnlyFile says how it reads")

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Be told which byte ranges [start, stop) will be read."""

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
        return bytes(self._take(size))

    def read_buffer(self, size: int = -1) -> pa.Buffer:
        """As `read`, without a copy of what was fetched before; pyarrow calls it where it can."""
        return pa.py_buffer(self._take(size))

    def _take(self, size: int | None) -> bytes | memoryview:
        stop = self.length if size is None or size < 0 else min(self.length, self._place + size)
        if stop <= self._place:
            return b""
        start, self._place = self._place, stop
        return self._at(start, stop)
