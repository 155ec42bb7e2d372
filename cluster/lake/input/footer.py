"""What the footer of a Parquet file says, or in plain words why it cannot be read."""

import hashlib
from dataclasses import dataclass

import pyarrow as pa

from cluster.lake.input import limits
from cluster.lake.input.arrow_types import type_name
from cluster.lake.storage.store import ChangedSinceSnapshot, Missing, Object, Store

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
# A file that is replaced while we look is looked at again; one that changes all the time is not
# finished, and cannot be a part of a snapshot.
_LOOKS = 3


@dataclass(frozen=True)
class Footer:
    object: Object  # the version that was looked at
    rows: int
    row_groups: tuple[tuple[int, int], ...]  # rows, uncompressed bytes
    columns: tuple[tuple[str, str], ...]  # name, type
    schema: pa.Schema
    fingerprint: str  # SHA-256 of the footer's bytes


@dataclass(frozen=True)
class Bad:
    rule: str
    message: str


def read_footer(store: Store, found: Object) -> Footer | Bad:
    """The footer of the object; of the version that took its place, if it was just replaced."""
    for _ in range(_LOOKS):
        try:
            return _read(store, found)
        except Missing:
            return Bad("vanished", f"{found.key} was listed, but is not there any more")
        except ChangedSinceSnapshot:
            try:
                found = store.stat(found.key)
            except Missing:
                return Bad("vanished", f"{found.key} was listed, but is not there any more")
    return Bad("changed", f"{found.key} changed while it was looked at: it is still being written")


def _read(store: Store, found: Object) -> Footer | Bad:
    if found.size == 0:
        return Bad("empty_file", f"{found.key} has zero bytes: expected a Parquet file")
    with store.open_parquet(found.key, found.version) as file:
        try:
            parquet = limits.open_parquet(file)
            metadata, schema = parquet.metadata, parquet.schema_arrow
            limits.check(metadata, found.size)
        except limits.Oversized as error:
            return Bad(error.rule, f"{found.key} declares more than is read: {error}")
        except (pa.ArrowException, OSError) as error:
            if not is_content(error):
                raise
            return explain(file, found, error)
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        counted = sum(group.num_rows for group in groups)
        if counted != metadata.num_rows or any(group.num_rows < 0 for group in groups):
            message = f"the footer says {metadata.num_rows:,} rows, its row groups {counted:,}"
            return Bad("unreadable", f"{found.key}: {message}")
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        return Footer(
            object=found,
            rows=counted,
            row_groups=tuple((group.num_rows, group.total_byte_size) for group in groups),
            columns=tuple((field.name, type_name(field.type)) for field in schema),
            schema=schema,
            fingerprint=hashlib.sha256(file.read()).hexdigest(),
        )


def is_content(error: BaseException) -> bool:
    """Whether an error speaks of what is in the file, not of the way to it.

    Arrow raises OSError for both; only errors of the system carry a number.
    """
    return not isinstance(error, OSError) or error.errno is None


def explain(file: object, found: Object, error: BaseException) -> Bad:
    """Why a file without a usable footer has none; never quotes the file's content."""
    file.seek(0)  # type: ignore[attr-defined]
    first = file.read(4)  # type: ignore[attr-defined]
    file.seek(max(0, found.size - 4))  # type: ignore[attr-defined]
    last = file.read(4)  # type: ignore[attr-defined]
    size = f"{found.size:,} bytes"
    if _ENCRYPTED in (first, last):
        return Bad("unreadable", f"{found.key} is encrypted: expected plain Parquet")
    if first != _MAGIC:
        kind = "text, perhaps CSV or JSON" if first.isascii() and first.strip() else "other data"
        message = f"{found.key} is not a Parquet file: it begins like {kind} ({size})"
        return Bad("not_parquet", message)
    if last != _MAGIC:
        message = f"{found.key} is truncated: it begins as Parquet, but has no footer ({size})"
        return Bad("truncated", message)
    return Bad("unreadable", f"{found.key} has a damaged footer ({size}): {error}")
