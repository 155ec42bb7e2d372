"""A Parquet file on S3, read by ranges."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence

from cluster.lake.storage import retries
from cluster.lake.storage.s3_requests import (
    Answer,
    S3Requests,
    error_code,
    object_of,
    version_of,
)
from cluster.lake.storage.store import DamagedObject, ReadOnlyFile, StoreFailed, changed_error
from cluster.lake.storage.stored_digest import StoredDigest, find_checksum, find_etag

# The footer of a file with 100 columns and 50 row groups is smaller; one request reads it whole.
_TAIL = 64 * 1024
# Two ranges closer than this are one request: at the 85 MB/s a connection of Amazon's performance
# guide, 1 MiB takes 12 ms, less than another request waits for its first byte.
_HOLE = 1024**2
# Larger ranges are fetched in parallel parts of this size; the same guide advises 8 to 16 MiB.
_PART = 16 * 1024**2
# An encrypted connection finds flipped bits itself. There the whole file is read for its digest
# only if that is at most this many times as much as is read anyway.
_MOST_TIMES = 4
# Buckets whose ETags look like MD5, and are none: found once, not looked for with each file.
_other_etags: set[str] = set()


class RangedFile(ReadOnlyFile):
    """One version of an object, as a file.

    The first request reads the end of the object, where Parquet has its footer. `prefetch` reads
    the column chunks in few large requests: half the time of s3fs's read-ahead
    (docs/decisions/object-storage.md).
    """

    def __init__(self, s3: S3Requests, key: str, version: str | None) -> None:
        self._s3, self._key = s3, key
        size, tail, self._answer = self._read_tail(version or "")
        super().__init__(size)
        self._version = version_of(self._answer)
        self._parts = [(size - len(tail), memoryview(tail))]
        self._verified: bool | None = None  # None: not compared yet

    def prefetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        missing = _join_near(span for span in ranges if self._find(*span) is None)
        fetched = self._s3.run(_gather([self._fetch(*span) for span in missing]))
        for (start, _), data in zip(missing, fetched, strict=True):
            self._parts.append((start, memoryview(data)))

    def verify(self, most: int) -> bool:
        if self._verified is None:
            fetched = sum(len(data) for _, data in self._parts)
            too_much = self._s3.is_encrypted() and self.length > _MOST_TIMES * fetched
            if self.length > most or too_much:
                return False
            digest = self._find_digest()
            self._verified = digest is not None and self._compare(digest)
        return self._verified

    def _find_digest(self) -> StoredDigest | None:
        etag = None if self._s3.bucket in _other_etags else find_etag(self._answer)
        if etag is not None:
            return etag
        head = self._s3.call("head_object", self._key, ChecksumMode="ENABLED")
        return find_checksum(head) if version_of(head) == self._version else None

    def _compare(self, digest: StoredDigest) -> bool:
        """Whether the whole file has this digest. Bytes that do not are fetched again."""
        whole: bytes | bytearray = self._fetch_rest()
        for _ in range(retries.TRIES):
            if digest.matches(whole):
                self._parts = [(0, memoryview(whole))]
                return True
            retries.thread_retries().value += 1
            again = self._s3.run(self._fetch(0, self.length))
            if again == whole and digest.certain:
                raise DamagedObject(
                    f"{self._s3.uri}/{self._key} does not match the checksum that the store has of "
                    "it: expected the bytes that were written; write the file again"
                )
            if again == whole:
                _other_etags.add(self._s3.bucket)
                self._parts = [(0, memoryview(whole))]
                return False
            whole = again
        raise StoreFailed(
            f"{self._s3.uri}/{self._key}: other bytes each time that it was read, and never those "
            f"of its digest (tried {retries.TRIES} times)"
        )

    def _fetch_rest(self) -> bytearray:
        """The whole file, of which only what is missing is fetched."""
        missing, at = [], 0
        for start, data in sorted(self._parts, key=lambda part: part[0]):
            if start > at:
                missing.append((at, start))
            at = max(at, start + len(data))
        if at < self.length:
            missing.append((at, self.length))
        self.prefetch(missing)
        whole = bytearray(self.length)
        for start, data in self._parts:
            whole[start : start + len(data)] = data
        return whole

    def _read_tail(self, version: str) -> tuple[int, bytes, Answer]:
        """Size and last bytes of the object, and an answer about it."""
        s3, key = self._s3, self._key
        try:
            tail, answer = s3.run(s3.get(key, version, f"-{_TAIL}"))
        except OSError as error:
            if error_code(error) not in ("InvalidRange", "416"):
                raise
            answer = s3.call("head_object", key)  # an empty object has no range
            found = object_of(key, answer["ContentLength"], answer)
            if version and found.version != version:
                raise changed_error(s3.uri, key, version, found.version) from None
            return found.size, b"", answer
        total = answer.get("ContentRange", "").rpartition("/")[2]
        return int(total) if total else len(tail), tail, answer

    def _read_range(self, start: int, stop: int) -> memoryview:
        data = self._find(start, stop)
        if data is None:
            data = memoryview(self._s3.run(self._fetch(start, stop)))
        return data

    def _find(self, start: int, stop: int) -> memoryview | None:
        """The bytes, if they were fetched."""
        for begin, data in self._parts:
            if begin <= start and stop <= begin + len(data):
                return data[start - begin : stop - begin]
        return None

    async def _fetch(self, start: int, stop: int) -> bytes:
        spans = [f"{at}-{min(at + _PART, stop) - 1}" for at in range(start, stop, _PART)]
        answers = await asyncio.gather(
            *(self._s3.get(self._key, self._version, span) for span in spans)
        )
        parts = [body for body, _ in answers]
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def _gather(work: Sequence[Awaitable[bytes]]) -> list[bytes]:
    return list(await asyncio.gather(*work))


def _join_near(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in order, with near ones joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= _HOLE:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        else:
            joined.append((start, stop))
    return joined
