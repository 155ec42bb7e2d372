"""Rows of a split, in order, each with its row number in the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from cluster.lake.input import limits
from cluster.lake.input.arrow_types import plain_type, to_type
from cluster.lake.input.column_chunks import HEADER_BYTES, Chunk, ColumnChunks, has_checksum
from cluster.lake.input.filters import parse_filter
from cluster.lake.input.folder_columns import ParquetInFolders
from cluster.lake.input.footer import hash_footer
from cluster.lake.input.splits import Split
from cluster.lake.input.unreadable import UnreadableFile, content_errors
from cluster.lake.storage.store import ChangedSinceSnapshot, Missing, ReadOnlyFile, Store
from models.refusal import Refusal, SchemaMismatch
from models.suggestion import suggest

# Column chunks of a split up to this size are fetched together. Larger ones (a row group of
# gigabytes that was cut by rows) are read a piece at a time, to bound the memory.
_PREFETCH = 512 * 1024**2
# A file of this size, or of the size of its split, has room in memory: it may be read whole, to
# compare it with the digest that its store has of it.
_WHOLE = 64 * 1024**2
# One such piece: the smallest request that Amazon's performance guide advises.
_PIECE = 8 * 1024**2


class Rows(NamedTuple):
    """Some rows of a split."""

    batch: pa.RecordBatch  # columns in the order asked for, in the types of the input
    numbers: np.ndarray  # int64 [rows]: their row numbers in the file


@dataclass(frozen=True)
class ReadBytes:
    """Bytes of the column chunks that were read, by what they were compared with."""

    by_pages: int = 0  # the checksums in their pages, while they were decoded
    by_store: int = 0  # the digest that the store has of the whole file
    by_nothing: int = 0


class OpenSplit:
    """A split's file, opened once, held to the snapshot's version, and read as often as needed.

    Methods raise `UnreadableFile`, `ChangedSinceSnapshot`, and `SchemaMismatch` for a column that
    is missing or there twice. An error of the store itself is no `Refusal`.
    """

    def __init__(
        self,
        split: Split,
        file: ReadOnlyFile,
        filter_text: str | None,
        types: pa.Schema | None = None,
    ) -> None:
        """`types` has the types to read columns in (see `file_types`); a column that it lacks is
        read in its own plain type."""
        self.split, self._file, self._types = split, file, types
        # Row numbers whose value has changed in its new type, by column.
        self.changed: dict[str, set[int]] = {}
        self._with_checksum: dict[Chunk, bool] = {}  # of the chunks that were read
        self._is_verified = False  # by the store's digest of the whole file
        self._parquet = _open_parquet(split.path, file, types)
        if split.footer and hash_footer(file) != split.footer:
            raise ChangedSinceSnapshot(
                f"{split.key} has another footer than the snapshot saw: expected the same bytes; "
                "run again to take a new snapshot"
            )
        self._schema = schema = self._parquet.schema_arrow
        metadata = self._parquet.metadata
        self._chunks = ColumnChunks(metadata, file.length)
        self._filter = parse_filter(filter_text, schema.names) if filter_text else None
        if self._filter:
            _require_columns(split.key, schema, self._filter.columns)
            self._filter.check(self._target(self._filter.columns))
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._edges = np.cumsum([0, *sizes])  # row number at which each row group begins
        if not split.row_groups or (
            self._edges[split.row_groups[0]] + split.offset != split.first_row
        ):
            raise Refusal(
                f"split {split.id} of {split.key} was not cut from this version of the file"
            )
        self._groups = self._filter_groups()

    @property
    def read_bytes(self) -> ReadBytes:
        """The bytes that were read so far."""
        pages = nothing = 0
        for chunk, with_checksum in self._with_checksum.items():
            size = chunk.stop - chunk.start
            pages += size if with_checksum else 0
            nothing += 0 if with_checksum else size
        if self._is_verified:
            return ReadBytes(by_store=pages + nothing)
        return ReadBytes(pages, 0, nothing)

    def prefetch(self, columns: Sequence[str]) -> None:
        """Fetch the columns that will be read, in few large requests."""
        with content_errors(self.split.key):
            self._prefetch(self._groups, self._with_filter_columns(columns))

    def read_rows(
        self, columns: Sequence[str], batch_rows: int, dictionaries: Sequence[str] = ()
    ) -> Iterator[Rows]:
        """The rows that pass the filter, in order, at most `batch_rows` at a time.

        Texts of the columns in `dictionaries` come as Arrow dictionaries, without a copy of each.
        """
        split, names = self.split, self._with_filter_columns(columns)
        span = [split.first_row, split.first_row + split.rows]
        first, stop = np.searchsorted(self._number_rows(self._groups), span)
        missing = int(stop - first)
        with content_errors(split.key):
            parquet = self._open_for(self._groups, names, dictionaries)
            schema = self._target(names)
            for numbers, batch in self._read_batches(parquet, self._groups, names, batch_rows):
                first, stop = np.searchsorted(numbers, span)
                missing -= int(stop - first)
                if stop > first:
                    part = batch.slice(int(first), int(stop - first))
                    here = numbers[first:stop]
                    rows = self._apply_filter(Rows(self._convert(part, here, schema), here))
                    yield Rows(rows.batch.select(list(columns)), rows.numbers)
                if not missing:
                    break
            if missing:
                message = f"{split.key} ends before its data does: {missing:,} rows are missing"
                raise UnreadableFile(split.key, "truncated", message)

    def select_rows(self, columns: Sequence[str], numbers: np.ndarray, batch_rows: int) -> pa.Table:
        """These columns of the rows with these numbers in the file (ascending, of this split).

        Only row groups with such a row are read.
        """
        names = tuple(dict.fromkeys(columns))
        parts = []
        with content_errors(self.split.key):
            _require_columns(self.split.key, self._schema, names)
            held = np.searchsorted(self._edges, numbers, side="right") - 1
            groups = tuple(dict.fromkeys(held.tolist()))
            texts = [name for name in names if pa.types.is_string(self._schema.field(name).type)]
            self._prefetch(groups, names)
            parquet = self._open_for(groups, names, texts)
            schema = self._target(names)
            first = 0
            for here, batch in self._read_batches(parquet, groups, names, batch_rows):
                stop = int(np.searchsorted(numbers, here[-1], side="right"))
                if stop > first:
                    rows = np.searchsorted(here, numbers[first:stop])
                    taken = batch.take(pa.array(rows))
                    parts.append(self._convert(taken, numbers[first:stop], schema))
                first = stop
        if not parts:
            return schema.empty_table().select(list(columns))
        return pa.Table.from_batches(parts).select(list(columns))

    def _filter_groups(self) -> tuple[int, ...]:
        """The split's row groups whose statistics do not exclude the filter."""
        groups, row_filter = self.split.row_groups, self._filter
        if row_filter is None:
            return groups
        kinds = [self._schema.field(name).type for name in row_filter.columns]
        if kinds != self._target(row_filter.columns).types:
            return groups  # the filter is true or false of values in another type
        # The statistics of floats leave out NaN, for which `not (x < 5)` is true: never skip.
        if any(pa.types.is_floating(kind) or pa.types.is_nested(kind) for kind in kinds):
            return groups
        if any(pa.types.is_decimal(kind) for kind in kinds):  # see `filters`
            return groups
        if not self._parquet.made.isdisjoint(row_filter.columns):
            return groups  # Arrow finds no statistics of folders, and of fields by their path
        expression = row_filter.express(self._schema)
        if expression is None:
            return groups
        self._file.seek(0)
        options = ds.ParquetReadOptions(coerce_int96_timestamp_unit="us")
        fragment = ds.ParquetFileFormat(options).make_fragment(self._file, row_groups=list(groups))
        subset = fragment.subset(filter=expression, schema=self._schema)
        # pyarrow returns them in the order of a Python set: (6, 7, 8) comes back as 8, 6, 7.
        left = {group.id for group in subset.row_groups}
        return tuple(index for index in groups if index in left)

    def _target(self, names: Sequence[str]) -> pa.Schema:
        """The types in which these columns are read."""
        known = self._types if self._types is not None else pa.schema([])
        return pa.schema(
            [
                known.field(name)
                if name in known.names
                else pa.field(name, plain_type(self._schema.field(name).type))
                for name in names
            ]
        )

    def _convert(
        self, batch: pa.RecordBatch, numbers: np.ndarray, target: pa.Schema
    ) -> pa.RecordBatch:
        """The batch in the types of `target`; its texts may be dictionaries."""
        arrays = []
        for field in target:
            values, changed = to_type(batch.column(field.name), field.type)
            arrays.append(values)
            if changed is not None:
                self.changed.setdefault(field.name, set()).update(numbers[changed].tolist())
        fields = [f.with_type(a.type) for f, a in zip(target, arrays, strict=True)]
        return pa.record_batch(arrays, schema=pa.schema(fields))

    def _with_filter_columns(self, columns: Sequence[str]) -> tuple[str, ...]:
        extra = self._filter.columns if self._filter else ()
        names = tuple(dict.fromkeys((*columns, *extra)))
        _require_columns(self.split.key, self._schema, names)
        return names

    def _prefetch(self, groups: Sequence[int], names: Sequence[str]) -> None:
        chunks = self._chunks.find(groups, names)
        if sum(chunk.stop - chunk.start for chunk in chunks) <= _PREFETCH:
            self._file.prefetch([(chunk.start, chunk.stop) for chunk in chunks])
        new = [chunk for chunk in chunks if chunk not in self._with_checksum]
        self._with_checksum |= {chunk: self._has_checksum(chunk) for chunk in new}
        if not all(self._with_checksum[chunk] for chunk in new):
            self._is_verified = self._file.verify(max(_WHOLE, self.split.bytes))

    def _has_checksum(self, chunk: Chunk) -> bool:
        """Whether its pages have checksums: writers give one to each page of a kind, or to none."""
        for page in chunk.pages:
            self._file.seek(page)
            if not has_checksum(self._file.read(HEADER_BYTES)):
                return False
        return True

    def _open_for(
        self, groups: Sequence[int], names: Sequence[str], dictionaries: Sequence[str]
    ) -> ParquetInFolders:
        large = self._chunks.compressed_bytes(groups, names) > _PREFETCH
        filtered = self._filter.columns if self._filter else ()
        apart = {*filtered, *self._parquet.made}
        wanted = [name for name in dictionaries if name not in apart]
        if not wanted and not large:
            return self._parquet
        return _open_parquet(
            self.split.path,
            self._file,
            self._types,
            metadata=self._parquet.metadata,
            read_dictionary=wanted,
            buffer_size=_PIECE if large else 0,
        )

    def _read_batches(
        self,
        parquet: ParquetInFolders,
        groups: Sequence[int],
        names: Sequence[str],
        batch_rows: int,
    ) -> Iterator[tuple[np.ndarray, pa.RecordBatch]]:
        """The row groups as batches, each with the row numbers of its rows."""
        numbers = self._number_rows(groups)
        place = 0
        for batch in parquet.iter_batches(
            self._chunks.batch_rows(groups, names, batch_rows),
            row_groups=list(groups),
            columns=list(names),
            use_threads=False,  # each of the worker's threads has a split of its own
        ):
            if batch.num_rows:
                yield numbers[place : place + batch.num_rows], batch
            place += batch.num_rows

    def _number_rows(self, groups: Sequence[int]) -> np.ndarray:
        """int64: the row numbers of all rows of the groups."""
        spans = [np.arange(self._edges[i], self._edges[i + 1], dtype=np.int64) for i in groups]
        return np.concatenate(spans) if spans else np.empty(0, np.int64)

    def _apply_filter(self, rows: Rows) -> Rows:
        if self._filter is None:
            return rows
        mask = self._filter.mask(rows.batch)
        if mask.all():
            return rows
        return Rows(rows.batch.filter(pa.array(mask)), rows.numbers[mask])


@contextmanager
def open_split(
    store: Store, split: Split, filter_text: str | None = None, types: pa.Schema | None = None
) -> Iterator[OpenSplit]:
    """Open the split's file. Raises as the methods of `OpenSplit` do.

    Row groups whose statistics exclude the filter are not fetched.
    """
    try:
        file = store.open_parquet(split.key, split.version or None)
    except Missing as gone:
        message = f"{gone}: it was there when the snapshot was taken"
        raise UnreadableFile(split.key, "vanished", message) from None
    with file:
        with content_errors(split.key):
            source = OpenSplit(split, file, filter_text, types)
        yield source


def read_rows(
    store: Store,
    split: Split,
    columns: Sequence[str],
    batch_rows: int,
    filter_text: str | None = None,
    types: pa.Schema | None = None,
) -> Iterator[Rows]:
    """The split's rows that pass the filter, in order. Raises as the methods of `OpenSplit` do."""
    with open_split(store, split, filter_text, types) as source:
        source.prefetch(columns)
        yield from source.read_rows(columns, batch_rows)


def _open_parquet(
    path: str, file: ReadOnlyFile, types: pa.Schema | None, **options: Any
) -> ParquetInFolders:
    # pre_buffer would copy what `prefetch` has fetched already.
    options |= {"page_checksum_verification": True, "pre_buffer": False}
    return ParquetInFolders(limits.open_parquet(file, **options), path, types)


def _require_columns(key: str, schema: pa.Schema, names: Sequence[str]) -> None:
    for name in names:
        count = schema.names.count(name)
        if count > 1:
            raise SchemaMismatch(f"{key}: expected one column {name!r}, found {count} of that name")
        if count == 0:
            hint = suggest(name, schema.names)
            raise SchemaMismatch(f"{key}: there is no column {name!r}{hint}")
