"""The footer of a Parquet file, read without its data."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.input import limits
from cluster.lake.input.arrow_types import is_uuid, plain_type
from cluster.lake.input.input_file import FileColumn, InputFile, RejectedFile, RowGroup
from cluster.lake.input.looks import Looks, UnsettledInput
from cluster.lake.input.struct_columns import add_struct_fields
from cluster.lake.input.unreadable import UnreadableFile, footer_errors
from cluster.lake.storage.store import Object, ReadOnlyFile, Store

# By the rule of a file that stayed as it was for minutes.
_TOLD = {
    "vanished": "{key} was listed, but is not there any more",
    "changed": "{key} changed each time it was read: it is still being written",
    "unreadable": "{key} is on a disk or a mount that cannot read it",
}


@dataclass(frozen=True, slots=True)
class Footer:
    file: InputFile
    folders: tuple[tuple[str, str | None], ...] = ()  # columns of its folders, with their values


def read_footer(
    store: Store,
    found: Object,
    folders: Mapping[str, str | None] | None = None,
    looks: Looks | None = None,
) -> Footer | RejectedFile:
    """The footer of a listed object, or of the version that has replaced it since.

    `folders` are the columns that its folders name, with their values: columns of the file, too.
    Raises `UnsettledInput` where the store fails.
    """
    key, versions = found.key, iter((found,))
    if found.size == 0:  # nothing to look at twice; and a pipe or a socket is never opened
        return RejectedFile(key, "empty_file", _empty(key))

    def read() -> Footer:
        return _read_version(store, next(versions, None) or store.stat(key), folders or {})

    try:
        return (looks or Looks()).read(key, read)
    except UnreadableFile as error:
        return RejectedFile(key, error.rule, str(error))
    except UnsettledInput as error:
        if error.rule not in _TOLD:
            raise
        return RejectedFile(key, error.rule, _TOLD[error.rule].format(key=key))


def hash_footer(file: ReadOnlyFile) -> str:
    """16 hexadecimal digits of the footer's SHA-256. It has no checksum of its own, so a worker
    compares what it reads with what the snapshot has read."""
    return _hash(_read_tail(file))


def _read_tail(file: ReadOnlyFile) -> bytes:
    """The footer, its length and the magic."""
    file.seek(-8, io.SEEK_END)
    file.seek(-8 - int.from_bytes(file.read(4), "little"), io.SEEK_END)
    return file.read()


def _hash(tail: bytes) -> str:
    return hashlib.sha256(tail).hexdigest()[:16]


def _empty(key: str) -> str:
    return f"{key} has zero bytes: expected a Parquet file"


def _read_version(store: Store, found: Object, folders: Mapping[str, str | None]) -> Footer:
    key = found.key
    if found.size == 0:
        raise UnreadableFile(key, "empty_file", _empty(key))
    with store.open_parquet(key, found.version) as file:
        with footer_errors(key, file):
            parquet = limits.open_parquet(file)
            metadata, schema = parquet.metadata, parquet.schema_arrow
            tail = _read_tail(file)
            limits.check(metadata, found.size, tail[:-8])
        schema = add_struct_fields(schema)
        own = set(schema.names)
        added = {name: value for name, value in folders.items() if name not in own}
        schema = pa.schema([*schema, *(pa.field(name, pa.string()) for name in added)])
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        rows = sum(group.num_rows for group in groups)
        if rows != metadata.num_rows or any(group.num_rows < 0 for group in groups):
            message = f"{key}: the footer says {metadata.num_rows:,} rows, its row groups {rows:,}"
            raise UnreadableFile(key, "unreadable", message)
        return Footer(
            file=InputFile(
                key=key,
                size=found.size,
                version=found.version,
                rows=rows,
                row_groups=tuple(RowGroup(g.num_rows, g.total_byte_size) for g in groups),
                columns=_read_columns(schema, groups),
                footer=_hash(tail),
            ),
            folders=tuple(added.items()),
        )


def _read_columns(
    schema: pa.Schema, groups: Sequence[pq.RowGroupMetaData]
) -> tuple[FileColumn, ...]:
    far = _find_far_integers(schema, groups)
    int96 = _find_int96(groups)
    return tuple(
        FileColumn(
            field.name,
            plain_type(field.type),
            is_uuid(field.type),
            (field.metadata or {}).get(b"channels"),
            field.name in far,
            field.name in int96,
        )
        for field in schema
    )


def _find_int96(groups: Sequence[pq.RowGroupMetaData]) -> set[str]:
    """The columns of times in INT96, fields of structs among them."""
    first = groups[0] if groups else None
    chunks = [first.column(place) for place in range(first.num_columns)] if first else []
    return {chunk.path_in_schema for chunk in chunks if chunk.physical_type == "INT96"}


def _find_far_integers(schema: pa.Schema, groups: Sequence[pq.RowGroupMetaData]) -> set[str]:
    """Integer columns with values beyond 2^53, as far as the statistics say."""
    wide = {field.name for field in schema if field.type in (pa.int64(), pa.uint64())}
    far: set[str] = set()
    if not wide or not groups:
        return far
    paths = [groups[0].column(place).path_in_schema for place in range(groups[0].num_columns)]
    for place, name in enumerate(paths):
        for group in groups if name in wide else ():
            chunk = group.column(place)
            statistics = chunk.statistics if chunk.is_stats_set else None
            if statistics is None or not statistics.has_min_max:
                continue
            if max(-statistics.min, statistics.max) > 2**53:
                far.add(name)
                break
    return far
