"""Rows of a split, in order, each with its row number in the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cluster.lake.input import footer, limits
from cluster.lake.input.arrow_types import plain_schema, to_plain_array
from cluster.lake.input.filters import RowFilter, parse_filter
from cluster.lake.input.splits import Split
from cluster.lake.storage.store import Missing, ReadOnlyFile, Store
from models.refusal import Refusal, SchemaMismatch
from models.suggestion import suggest

__all__ = [
    "OpenSplit",
    "RowFilter",
    "Rows",
    "UnreadableFile",
    "open_split",
    "parse_filter",
    "read_rows",
]

# Column chunks of a split up to this size are fetched at once; of larger ones (a row group of
# gigabytes that was cut by rows) each column is read bit by bit, to bound the memory.
_PREFETCH = 512 * 1024**2
# One request of such a column: the smallest size that Amazon's performance guide advises.
_BIT = 8 * 1024**2


class UnreadableFile(Refusal):
    """A file that is there, as it was, and still cannot be read.

    `rule` is one of vanished, truncated, checksum, oversized, unreadable.
    """

    def __init__(self, key: str, rule: str, message: str) -> None:
        super().__init__(message)
        self.key, self.rule = key, rule

    def __reduce__(self) -> tuple[type["UnreadableFile"], tuple[str, str, str]]:
        return UnreadableFile, (self.key, self.rule, str(self))


class Rows(NamedTuple):
    """Some rows of a split."""

    batch: pa.RecordBatch  # columns as asked for, in plain types (see `arrow_types`)
    numbers: np.ndarray  # int64 [rows]: their row numbers in the file


class OpenSplit:
    """A split's file, opened once, held to the snapshot's version, read as often as is needed.

    Methods raise `UnreadableFile`, `ChangedSinceSnapshot`, and `SchemaMismatch` for a column that
    is missing or there twice; an error of the store itself is no `Refusal`, and stays what it is.
    """

    def __init__(self, split: Split, file: ReadOnlyFile, filter_text: str | None) -> None:
        self.split, self._file = split, file
        self._parquet = _open(file)
        # Each look at a footer makes it anew: in 2,000 small files, half a millisecond of each.
        self._schema = schema = self._parquet.schema_arrow
        self._chunks = _Chunks(file, self._parquet.metadata)
        self._filter = parse_filter(filter_text, schema.names) if filter_text else None
        if self._filter:
            _need(split.key, schema, self._filter.columns)
            self._filter.check(schema)
        self._groups = _groups(file, self._parquet, split, self._filter)
        self._numbers = _numbers(self._parquet.metadata, split, self._groups)

    def prefetch(self, columns: Sequence[str]) -> None:
        """Be told which columns will be read: they are brought near in few, large requests."""
        with _told(self.split.key):
            self._fetch(self._groups, self._names(columns))

    def read_rows(
        self, columns: Sequence[str], batch_rows: int, dictionaries: Sequence[str] = ()
    ) -> Iterator[Rows]:
        """Rows in order, at most `batch_rows` at a time; without those filtered out.

        Texts of the columns in `dictionaries` come as Arrow dictionaries, without a copy of each.
        """
        names = self._names(columns)
        with _told(self.split.key):
            parquet = self._open_for(names, dictionaries)
            yield from _rows(
                parquet,
                self.split,
                self._groups,
                self._numbers,
                columns,
                names,
                self._chunks.batch_rows(self._groups, names, batch_rows),
                self._filter,
            )

    def select_rows(self, columns: Sequence[str], numbers: np.ndarray, batch_rows: int) -> pa.Table:
        """These columns of the rows with these numbers in the file (ascending, of this split).

        Only row groups that hold one of them are read.
        """
        names = tuple(dict.fromkeys(columns))
        with _told(self.split.key):
            _need(self.split.key, self._schema, names)
            edges = _edges(self._parquet.metadata)
            held = np.searchsorted(edges, numbers, side="right") - 1
            groups = tuple(dict.fromkeys(held.tolist()))
            kinds = {name: self._schema.field(name).type for name in names}
            texts = [name for name, kind in kinds.items() if pa.types.is_string(kind)]
            self._fetch(groups, names)
            parquet = self._open_for(names, texts, groups)
            found = parquet.schema_arrow
            schema = plain_schema(pa.schema([found.field(name) for name in names]))
            parts = []
            place = first = 0
            here = _numbers_of(edges, groups)
            for batch in parquet.iter_batches(
                self._chunks.batch_rows(groups, names, batch_rows),
                row_groups=list(groups),
                columns=list(names),
                use_threads=False,
            ):
                last = place + batch.num_rows
                stop = int(np.searchsorted(numbers, here[last - 1], side="right"))
                if stop > first:
                    rows = np.searchsorted(here[place:last], numbers[first:stop])
                    part = batch.take(pa.array(rows))
                    arrays = [to_plain_array(part.column(name)) for name in names]
                    parts.append(pa.record_batch(arrays, schema=schema))
                place, first = last, stop
        return pa.Table.from_batches(parts, schema=schema).select(list(columns))

    def _names(self, columns: Sequence[str]) -> tuple[str, ...]:
        """The columns, and those of the filter."""
        extra = self._filter.columns if self._filter else ()
        names = tuple(dict.fromkeys((*columns, *extra)))
        _need(self.split.key, self._schema, names)
        return names

    def _fetch(self, groups: Sequence[int], names: Sequence[str]) -> None:
        """Bring the column chunks near, unless they are too large."""
        ranges = self._chunks.ranges(groups, names)
        if _size(ranges) <= _PREFETCH:
            self._file.prefetch(ranges)

    def _open_for(
        self,
        names: Sequence[str],
        dictionaries: Sequence[str],
        groups: Sequence[int] | None = None,
    ) -> pq.ParquetFile:
        read = self._groups if groups is None else groups
        large = _size(self._chunks.ranges(read, names)) > _PREFETCH
        filtered = self._filter.columns if self._filter else ()
        wanted = [name for name in dictionaries if name not in filtered]
        if not wanted and not large:
            return self._parquet
        return _open(
            self._file,
            metadata=self._parquet.metadata,
            read_dictionary=wanted,
            buffer_size=_BIT if large else 0,
        )


@contextmanager
def open_split(store: Store, split: Split, filter_text: str | None = None) -> Iterator[OpenSplit]:
    """Open the split's file. Raises as the methods of `OpenSplit` do.

    Row groups that the filter excludes by their statistics are not fetched.
    """
    try:
        file = store.open_parquet(split.key, split.version)
    except Missing as gone:
        message = f"{gone}: it was there when the snapshot was taken"
        raise UnreadableFile(split.key, "vanished", message) from None
    with file:
        with _told(split.key):
            opened = OpenSplit(split, file, filter_text)
        yield opened


def read_rows(
    store: Store,
    split: Split,
    columns: Sequence[str],
    batch_rows: int,
    filter_text: str | None = None,
) -> Iterator[Rows]:
    """Rows of the split in order, in one reading: see `OpenSplit`."""
    with open_split(store, split, filter_text) as opened:
        opened.prefetch(columns)
        yield from opened.read_rows(columns, batch_rows)


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Errors of the content as `UnreadableFile`."""
    try:
        yield
    except limits.Oversized as error:
        raise UnreadableFile(
            key, error.rule, f"{key} declares more than is read: {error}"
        ) from None
    except (pa.ArrowException, OSError) as error:
        if not footer.is_content(error):
            raise
        raise _unreadable(key, error) from error


def _open(file: ReadOnlyFile, **options: Any) -> pq.ParquetFile:
    # pre_buffer would copy what `prefetch` has brought already.
    return limits.open_parquet(file, page_checksum_verification=True, pre_buffer=False, **options)


def _need(key: str, schema: pa.Schema, names: Sequence[str]) -> None:
    for name in names:
        there = schema.names.count(name)
        if there > 1:
            raise SchemaMismatch(f"{key}: expected one column {name!r}, found {there} of that name")
        if there == 0:
            near = suggest(name, schema.names)
            raise SchemaMismatch(f"{key}: there is no column {name!r}{near}")


def _groups(
    file: ReadOnlyFile, parquet: pq.ParquetFile, split: Split, row_filter: RowFilter | None
) -> tuple[int, ...]:
    """The split's row groups that may hold rows of the filter."""
    if row_filter is None:
        return split.row_groups
    found = parquet.schema_arrow
    kinds = [found.field(name).type for name in row_filter.columns]
    # The statistics of floats say nothing of NaN, for which `not (x < 5)` is true: never skip.
    if any(pa.types.is_floating(kind) or pa.types.is_nested(kind) for kind in kinds):
        return split.row_groups
    if any(isinstance(kind, pa.BaseExtensionType) for kind in kinds):
        return split.row_groups
    file.seek(0)
    fragment = ds.ParquetFileFormat().make_fragment(file, row_groups=list(split.row_groups))
    subset = fragment.subset(filter=row_filter.expression, schema=found)
    # pyarrow hands them through a Python set: (6, 7, 8) comes back as 8, 6, 7.
    kept = {group.id for group in subset.row_groups}
    return tuple(index for index in split.row_groups if index in kept)


class _Chunks:
    """Where the column chunks of a file lie, by row group and column; looked up once each."""

    def __init__(self, file: ReadOnlyFile, metadata: pq.FileMetaData) -> None:
        self._length, self._metadata = file.length, metadata
        self._found: dict[int, dict[str, list[tuple[int, int]]]] = {}
        self._sizes: dict[int, dict[str, int]] = {}  # uncompressed bytes

    def ranges(self, groups: Sequence[int], names: Sequence[str]) -> list[tuple[int, int]]:
        """The bytes [start, stop) of each chunk of these columns."""
        chunks = [self._of(group) for group in groups]
        return [span for found in chunks for name in names for span in found.get(name, ())]

    def batch_rows(self, groups: Sequence[int], names: Sequence[str], wanted: int) -> int:
        """Rows to decode at once: fewer where a row of these columns is large."""
        fewest = wanted
        for index in groups:
            self._of(index)
            size = sum(self._sizes[index].get(name, 0) for name in names)
            rows = self._metadata.row_group(index).num_rows
            fewest = min(fewest, limits.batch_rows(wanted, rows, size))
        return fewest

    def _of(self, index: int) -> dict[str, list[tuple[int, int]]]:
        if index not in self._found:
            found = self._found[index] = {}
            sizes = self._sizes[index] = {}
            group = self._metadata.row_group(index)
            for place in range(group.num_columns):
                chunk = group.column(place)
                start = chunk.data_page_offset
                if chunk.dictionary_page_offset:
                    start = min(start, chunk.dictionary_page_offset)
                stop = min(self._length, start + chunk.total_compressed_size)
                for name in _prefixes(chunk.path_in_schema):
                    found.setdefault(name, []).append((start, stop))
                    sizes[name] = sizes.get(name, 0) + chunk.total_uncompressed_size
        return self._found[index]


def _prefixes(path: str) -> Iterator[str]:
    """What may be meant by a column's path: `a.b` is a part of `a`, or a name with a dot."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _size(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(stop - start for start, stop in ranges)


def _rows(
    parquet: pq.ParquetFile,
    split: Split,
    groups: Sequence[int],
    numbers: np.ndarray,
    columns: Sequence[str],
    names: Sequence[str],
    batch_rows: int,
    row_filter: RowFilter | None,
) -> Iterator[Rows]:
    last = split.first_row + split.rows
    place = 0
    found = parquet.schema_arrow  # made anew by each look
    schema = plain_schema(pa.schema([found.field(name) for name in names]))
    for batch in parquet.iter_batches(
        # One thread a split: the actor's threads have a split each.
        batch_rows,
        row_groups=list(groups),
        columns=list(names),
        use_threads=False,
    ):
        here = numbers[place : place + batch.num_rows]
        place += batch.num_rows
        first, stop = np.searchsorted(here, [split.first_row, last])
        if stop > first:
            part = batch.slice(int(first), int(stop - first))
            arrays = [to_plain_array(part.column(name)) for name in names]
            rows = Rows(pa.record_batch(arrays, schema=schema), here[first:stop])
            rows = _kept(rows, row_filter)
            yield Rows(rows.batch.select(list(columns)), rows.numbers)
        if place and numbers[place - 1] >= last - 1:
            break
    if place < len(numbers) and numbers[place] < last:
        message = f"{split.key}: expected {len(numbers):,} rows in the split, found {place:,}"
        raise UnreadableFile(split.key, "truncated", message)


def _numbers(metadata: pq.FileMetaData, split: Split, groups: Sequence[int]) -> np.ndarray:
    """int64: the row numbers in the file of all rows of the groups."""
    edges = _edges(metadata)
    if not split.row_groups or edges[split.row_groups[0]] + split.offset != split.first_row:
        raise Refusal(f"split {split.id} of {split.key} was not cut from this version of the file")
    return _numbers_of(edges, groups)


def _edges(metadata: pq.FileMetaData) -> np.ndarray:
    """int64 [row groups + 1]: the row number at which each row group begins."""
    return np.cumsum([0, *(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))])


def _numbers_of(edges: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    spans = [np.arange(edges[i], edges[i + 1], dtype=np.int64) for i in groups]
    return np.concatenate(spans) if spans else np.empty(0, np.int64)


def _kept(rows: Rows, row_filter: RowFilter | None) -> Rows:
    if row_filter is None:
        return rows
    keep = row_filter.mask(rows.batch)
    if keep.all():
        return rows
    return Rows(rows.batch.filter(pa.array(keep)), rows.numbers[keep])


def _unreadable(key: str, error: BaseException) -> UnreadableFile:
    text = str(error)
    lower = text.lower()
    if "crc" in lower or "checksum" in lower:
        return UnreadableFile(key, "checksum", f"{key}: a page does not match its checksum: {text}")
    if "end of file" in lower or "eof" in lower or "expected to read" in lower:
        return UnreadableFile(key, "truncated", f"{key} ends before its data does: {text}")
    return UnreadableFile(key, "unreadable", f"{key} cannot be decoded: {text}")
