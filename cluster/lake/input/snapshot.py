"""The frozen list of a day's files.

A snapshot is plain data that can be printed and compared. It depends neither on Ray nor on the
order in which footers arrive.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import pyarrow as pa

from cluster.lake.input.arrow_types import plain_type
from cluster.lake.input.file_types import find_common_schema
from cluster.lake.input.footer import Footer, read_footer
from cluster.lake.input.input_file import FileColumn, InputFile, RejectedFile
from cluster.lake.input.layout import list_columns
from cluster.lake.input.looks import Looks
from cluster.lake.input.partitions import BAD_NAME, Source, StrayFolder, list_files, open_input
from cluster.lake.input.struct_columns import add_struct_fields
from cluster.lake.input.tables import TableVersion
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import ChangedSinceSnapshot, Missing, Object, Store
from models import canonical_json
from models.refusal import Refusal

T = TypeVar("T")

# Footers are small reads that wait for the network: more threads than CPUs.
_FOOTER_THREADS = 16
# A read that waits for a thread takes 1 KB, so a million of them are handed out in parts.
_FOOTERS_AHEAD = 4096
_HASH_BYTES = 16 * 1024**2  # a request to S3 of this size takes no longer than its share


@dataclass(frozen=True)
class Snapshot:
    """The frozen list of input files of one day."""

    uri: str  # as `open_store` takes it in any folder: a worker runs in one of its own
    day: str
    files: tuple[InputFile, ...]
    rejected: tuple[RejectedFile, ...]
    schema: pa.Schema  # common to the files (see `file_types`); empty without files
    stray: tuple[StrayFolder, ...] = ()  # beside the day, of no day
    version: int | None = None  # of the Delta table that the files are of; None for plain files
    # Only of derived rows: the digest of the day's own files, and of everything that the rows were
    # derived from (see `derive`).
    input_digest: str = ""
    derivation: str = ""

    @cached_property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def misnamed(self) -> tuple[RejectedFile, ...]:
        """What is rejected by its name alone."""
        return tuple(file for file in self.rejected if file.rule == BAD_NAME)

    @cached_property
    def bytes(self) -> int:
        """Uncompressed bytes of all columns."""
        return sum(group.bytes for file in self.files for group in file.row_groups)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the list of files: the same files give the same digest at any URI.

        A table's version is not in it, but what the version says of this day: its files. So a
        commit of another day leaves this one, and what is derived of it, as done.

        For derived rows it is the digest of everything that they were derived from.
        """
        if self.derivation:
            return self.derivation
        digest = hashlib.sha256()

        def add(*entry: str | int) -> None:
            digest.update(canonical_json.encode(entry, ascii_only=True, spaced=True))

        add(self.day, len(self.files))
        for file in self.files:
            logged = () if file.logged is None else (file.logged,)
            add(file.key, file.size, file.version, file.rows, *logged)
        for bad in self.rejected:
            add(bad.key, bad.rule)
        return digest.hexdigest()

    @property
    def day_digest(self) -> str:
        """The digest of the day's own input files, also where rows are derived from more."""
        return self.input_digest or self.digest


def take_snapshot(source: Source, day: str) -> Snapshot:
    """Freeze the files of a day, each with its footer read. Raises as `list_files` does.

    A file is Parquet by its content, whatever its name is. What cannot be used, or doubles another
    file, is in `rejected`.
    """
    store, _ = open_input(source.uri)
    good: list[Footer] = []
    there = list_files(source, day)
    bad = list(there.rejected)
    columns: dict[Any, Any] = {}  # equal columns are one object: a driver holds a million files

    looks = Looks()

    def read(file: Object) -> Footer | RejectedFile:
        path = there.logged.get(file.key, file.key)
        return read_footer(store, file, list_columns(path, source.layout), looks)

    for footer in _map(read, there.files):
        if isinstance(footer, RejectedFile):
            bad.append(footer)
            continue
        known = footer.file.columns
        if source.table:
            known = _add_absent(known, source.table)
        shared = columns.setdefault(known, known)
        logged = there.logged.get(footer.file.key)
        if logged is not None and list_columns(logged, None) == list_columns(footer.file.key, None):
            logged = None
        file = replace(footer.file, columns=shared, logged=logged)
        good.append(replace(footer, file=file))
    # Two files of a table with the same bytes are rows that were put twice: the log has both.
    doubles = {} if source.table else _find_doubles(store, good)
    files = tuple(footer.file for footer in good if footer.file.key not in doubles)
    return Snapshot(
        uri=store.uri,
        day=day,
        files=files,
        rejected=tuple(sorted((*bad, *doubles.values()), key=lambda file: file.key)),
        schema=find_common_schema(files),
        stray=there.stray,
        version=source.table.version if source.table else None,
    )


def list_days_with_rows(source: Source, days: Sequence[str]) -> Iterator[str]:
    """Those of the days that have rows, from the last on.

    A day costs a listing and the footers up to the first file with rows. A file that cannot be read
    has none.
    """
    store, _ = open_input(source.uri)
    looks = Looks()
    for day in reversed(days):
        footers = (read_footer(store, file, looks=looks) for file in list_files(source, day).files)
        if any(isinstance(footer, Footer) and footer.file.rows for footer in footers):
            yield day


def _add_absent(columns: tuple[FileColumn, ...], table: TableVersion) -> tuple[FileColumn, ...]:
    """The columns of a table's file, with those that the table got after it was written."""
    there = {*(column.name for column in columns), *table.columns}
    absent = (field for field in add_struct_fields(table.schema) if field.name not in there)
    return (*columns, *(FileColumn(field.name, plain_type(field.type)) for field in absent))


def inspect_files(uri: str, keys: Sequence[str]) -> tuple[tuple[InputFile, ...], pa.Schema]:
    """The files with these keys as they are now, and their common schema.

    Raises `Refusal` for a file that cannot be used.
    """
    store = open_store(uri)
    good, looks = [], Looks()
    for footer in _map(lambda key: read_footer(store, store.stat(key), looks=looks), keys):
        if isinstance(footer, RejectedFile):
            raise Refusal(footer.message)
        good.append(footer)
    files = tuple(footer.file for footer in good)
    return files, find_common_schema(files)


def _map(
    read: Callable[[T], Footer | RejectedFile], items: Sequence[T]
) -> Iterator[Footer | RejectedFile]:
    """The footers in the order of the items, read in parallel."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        for start in range(0, len(items), _FOOTERS_AHEAD):
            yield from threads.map(read, items[start : start + _FOOTERS_AHEAD])


def _find_doubles(store: Store, footers: Sequence[Footer]) -> dict[str, RejectedFile]:
    """Files with the same bytes as an earlier one, by key: their rows would be counted twice.

    Rows of other folders are other rows, if these folders are columns.

    Only files of equal size and equal footers are read.
    """
    alike: dict[tuple[Any, ...], list[InputFile]] = {}
    for footer in footers:
        if footer.file.rows:
            alike.setdefault((footer.file.size, footer.file.footer, footer.folders), []).append(
                footer.file
            )
    doubles = {}
    for files in (files for files in alike.values() if len(files) > 1):
        first: dict[str, str] = {}  # key by digest
        for file in files:
            try:
                digest = _hash(store, file)
            except (Missing, ChangedSinceSnapshot):
                continue  # the worker that reads it says so
            twin = first.setdefault(digest, file.key)
            if twin != file.key:
                same = f"{file.key} has the same bytes as {twin}"
                message = f"{same}: its {file.rows:,} rows are doubles"
                doubles[file.key] = RejectedFile(file.key, "duplicate", message)
    return doubles


def _hash(store: Store, file: InputFile) -> str:
    """SHA-256 of the file, read in parts: a sparse file has terabytes and takes no room."""
    digest = hashlib.sha256()
    with store.open_parquet(file.key, file.version) as opened:
        while part := opened.read(_HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()
