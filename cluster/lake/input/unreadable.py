"""Files that cannot be read, each with a reason that quotes nothing from the file."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from cluster.lake.input.limits import Oversized, Undecodable
from cluster.lake.storage.store import DamagedObject, ReadOnlyFile, StoreFailed
from models.masking import describe
from models.refusal import Refusal

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"


class UnreadableFile(Refusal):
    """A file that is unchanged since the snapshot, and still cannot be read.

    `rule` is one of vanished, empty_file, truncated, checksum, oversized, not_parquet, unreadable.
    """

    def __init__(self, key: str, rule: str, message: str) -> None:
        super().__init__(message)
        self.key, self.rule = key, rule

    def __reduce__(self) -> tuple[type["UnreadableFile"], tuple[str, str, str]]:
        return UnreadableFile, (self.key, self.rule, str(self))


@contextmanager
def content_errors(key: str) -> Iterator[None]:
    """Raise errors about the file's content as `UnreadableFile`; other errors pass."""
    try:
        yield
    except Oversized as error:
        raise _oversized(key, error) from None
    except Undecodable as error:
        raise UnreadableFile(key, error.rule, f"{key} cannot be read: {error}") from None
    except DamagedObject as error:
        raise UnreadableFile(key, error.rule, str(error)) from None
    except (pa.ArrowException, OSError) as error:
        if not _is_about_content(error):
            raise
        raise _damaged(key, error) from error


@contextmanager
def footer_errors(key: str, file: ReadOnlyFile) -> Iterator[None]:
    """As `content_errors`, for a footer: says what the file is instead of Parquet."""
    try:
        yield
    except Oversized as error:
        raise _oversized(key, error) from None
    except Undecodable as error:
        raise UnreadableFile(key, error.rule, f"{key} cannot be read: {error}") from None
    except (pa.ArrowException, OSError) as error:
        if not _is_about_content(error):
            raise
        raise _not_parquet(key, file, error) from error


def _is_about_content(error: BaseException) -> bool:
    """Arrow raises OSError for damaged content too; only errors of the system have a number."""
    if isinstance(error, StoreFailed):
        return False
    return not isinstance(error, OSError) or error.errno is None


def _oversized(key: str, error: Oversized) -> UnreadableFile:
    return UnreadableFile(key, error.rule, f"{key} declares more than is read: {error}")


def _damaged(key: str, error: BaseException) -> UnreadableFile:
    text, lower = describe(error), str(error).lower()
    if "crc" in lower or "checksum" in lower:
        return UnreadableFile(key, "checksum", f"{key}: a page does not match its checksum: {text}")
    if "end of file" in lower or "eof" in lower or "expected to read" in lower:
        return UnreadableFile(key, "truncated", f"{key} ends before its data does: {text}")
    return UnreadableFile(key, "unreadable", f"{key} cannot be decoded: {text}")


def _not_parquet(key: str, file: ReadOnlyFile, error: BaseException) -> UnreadableFile:
    size = f"{file.length:,} bytes"
    file.seek(0)
    first = file.read(4)
    file.seek(max(0, file.length - 4))
    last = file.read(4)
    if _ENCRYPTED in (first, last):
        return UnreadableFile(key, "unreadable", f"{key} is encrypted: expected plain Parquet")
    if first != _MAGIC:
        kind = "text, perhaps CSV or JSON" if first.isascii() and first.strip() else "other data"
        message = f"{key} is not a Parquet file: it begins like {kind} ({size})"
        return UnreadableFile(key, "not_parquet", message)
    if last != _MAGIC:
        message = f"{key} is truncated: it begins as Parquet, but has no footer ({size})"
        return UnreadableFile(key, "truncated", message)
    return UnreadableFile(
        key, "unreadable", f"{key} has a damaged footer ({size}): {describe(error)}"
    )
