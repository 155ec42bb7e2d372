"""Rows written anew with columns that need other rows: histories and windows.

The derived rows of a day lie under `<target>/<digest>/`, and are read from there as any other
input. The digest is over the derivation and the snapshots of the day and of the days that it looks
back on, so what is there is never stale, and a changed input makes new rows. A derived file has
the key of the file that its rows come from, with the number of its first row there appended: row 7
of `<digest>/day=D/part-3-1000.parquet` is row 1007 of `day=D/part-3.parquet`.

Every file is created whole, and the marker, which lists them, last: without it the day is not
derived. Equal inputs give equal bytes, so a second attempt, at the same time or after a crash,
finds its own files and leaves them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from types import TracebackType

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.derived.alignment import RowStream, join_columns
from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.history import HistoryTable
from cluster.lake.derived.windows import Windows
from cluster.lake.input.arrow_types import decode_dictionaries
from cluster.lake.input.filters import RowFilter, parse_filter
from cluster.lake.input.input_file import InputFile, RejectedFile
from cluster.lake.input.partitions import list_days
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import Snapshot, find_drift, inspect_files, take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Object, Store
from models import canonical_json
from models.refusal import Refusal

_MARKER = "_derived.json"
# Part of the digest: whatever changes the bytes of a derived file raises it.
_FORMAT = 1
# A piece is built in memory: so many rows, or bytes of windows, are one file at most.
_PIECE_ROWS = 1_000_000
_PIECE_BYTES = 256 * 1024**2
# Rows of a derived file's row group, where windows do not fill it sooner.
_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 * 1024**2
_BATCH_ROWS = 65_536
_TOLD = 10  # columns of other types that a message names

Advance = Callable[[int], None]


class Deriver:
    """Derives days of one input; a context manager. Quickest where days are derived in order."""

    def __init__(
        self, derivation: Derivation, uri: str, partition: str | None, target: str
    ) -> None:
        self.derivation, self.uri, self.partition = derivation, uri, partition
        self.store = open_store(target)
        self._there = list_days(uri, partition)
        self._taken: dict[str, Snapshot] = {}
        self._digests: dict[str, str] = {}
        self._resources = ExitStack()
        self._table: HistoryTable | None = None

    def __enter__(self) -> "Deriver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def input_snapshot(self, day: str) -> Snapshot:
        """The day's snapshot in the input; the same at every call."""
        if day not in self._taken:
            self._taken[day] = take_snapshot(self.uri, self.partition, day)
        return self._taken[day]

    def earlier_days(self, day: str) -> tuple[str, ...]:
        """The days there are that the rows of `day` look back on, in order."""
        return self._before(day, max(self.derivation.history_days, self.derivation.window_days))

    def digest(self, day: str) -> str:
        """SHA-256 over all that the day's derived rows depend on."""
        if day in self._digests:
            return self._digests[day]
        document = {
            "format": [_FORMAT, duckdb.__version__],
            "derivation": asdict(self.derivation),
            "snapshots": [self.input_snapshot(d).digest for d in (*self.earlier_days(day), day)],
        }
        found = hashlib.sha256(canonical_json.encode(document)).hexdigest()
        self._digests[day] = found
        return found

    def is_derived(self, day: str) -> bool:
        """Whether there is nothing to do; so too for a day without readable files."""
        return not self.input_snapshot(day).files or self.store.exists(self._key(day, _MARKER))

    def count_rows_to_read(self, days: Sequence[str]) -> int:
        """Rows that `derive` reads for these days, the ones it looks back on with them."""
        past = {d for day in days for d in self._before(day, self.derivation.history_days)}
        read = [*days, *(past | set(days) if self.derivation.history else ())]
        if self.derivation.window:
            read += [d for day in days for d in self._before(day, self.derivation.window_days)]
            read += days
        return sum(self.input_snapshot(day).rows for day in read)

    def take_snapshot(self, day: str) -> Snapshot:
        """The derived day, frozen; of a day without readable files its own snapshot."""
        source = self.input_snapshot(day)
        if not source.files:
            return replace(source, uri=self.store.uri)
        marker = self._key(day, _MARKER)
        keys: list[str] = canonical_json.decode(self.store.read(marker), marker)["files"]
        files, schema = inspect_files(self.store.uri, keys)
        _balance(source, files)
        uri, digest = self.store.uri, self.digest(day)
        return Snapshot(uri, day, files, source.rejected, schema, source.digest, digest)

    def derive(self, day: str, advance: Advance = lambda rows: None) -> None:
        """Write the day's derived rows, then the marker; `advance` hears of the rows read.

        A file that turns out to be unreadable is set aside as those are whose footer is: the day is
        derived anew without it, under another digest. Raises as `read_rows` does otherwise, and
        `Refusal` for columns that days have in other types.
        """
        while True:
            try:
                return self._derive(day, advance)
            except UnreadableFile as found:
                self._set_aside(day, found)

    def _set_aside(self, day: str, found: UnreadableFile) -> None:
        """The snapshot of the day that the file belongs to, without it; raises what there is."""
        for one in (*self.earlier_days(day), day):
            source = self.input_snapshot(one)
            files = tuple(file for file in source.files if file.key != found.key)
            if len(files) < len(source.files):
                rejected = (*source.rejected, RejectedFile(found.key, found.rule, str(found)))
                self._taken[one] = replace(source, files=files, rejected=rejected)
                self._digests.clear()
                self._forget()
                return
        raise found

    def _forget(self) -> None:
        """The look-back holds rows of the file: it begins anew."""
        self._resources.close()
        self._table = None

    def _derive(self, day: str, advance: Advance) -> None:
        source = self.input_snapshot(day)
        if not source.files:
            return
        self._check(day)
        histories = self._histories(day, advance) if self.derivation.history and source.rows else ()
        added = RowStream(self._history_schema, iter(histories))
        windows = self._windows(day, advance) if self.derivation.window else None
        place, keys = 0, []
        for split in self._pieces(source):
            rows = self._carried(source, split)
            stop = place + rows.num_rows
            parts = [rows, added.next_rows(rows.num_rows)]
            if windows is not None:
                parts.append(windows.build(place, stop))
            keys.append(self._write(day, split, join_columns(parts)))
            place = stop
            advance(rows.num_rows)
        files, _ = inspect_files(self.store.uri, keys)
        _balance(source, files)
        self.store.create(
            self._key(day, _MARKER), canonical_json.encode({"day": day, "files": keys})
        )

    def _key(self, day: str, name: str) -> str:
        return f"{self.digest(day)[:32]}/{name}"

    def _before(self, day: str, count: int) -> tuple[str, ...]:
        if self.partition is None or count == 0:
            return ()
        first = (_date(day) - timedelta(days=count)).isoformat()
        return tuple(d for d in self._there if first <= d < day and _date(d))

    def _check(self, day: str) -> None:
        """One type a column, in every file of the day and of the days before it."""
        source = self.input_snapshot(day)
        drifts = find_drift(source, self._columns(source))
        needed = self.derivation.needed
        for earlier in map(self.input_snapshot, self.earlier_days(day)):
            one = replace(earlier, files=(source.files[0], *earlier.files))
            drifts += find_drift(one, needed) if earlier.files else ()
        if drifts:
            told = "\n".join(map(str, drifts[:_TOLD]))
            raise Refusal(
                f"{told}\ncolumns that look back need one type on all days; write them so"
            )

    def _columns(self, source: Snapshot) -> tuple[str, ...]:
        """The columns that the derived rows carry, and those that are needed for deriving."""
        derivation = self.derivation
        carried = [name for name in derivation.columns if name in source.schema.names]
        row_filter = self._filter(source)
        filtered = list(row_filter.columns) if row_filter else []
        # A filter of the training may be of columns that a night does not have yet.
        with suppress(Refusal):
            filtered += parse_filter(derivation.also or "", source.schema.names).columns
        return tuple(dict.fromkeys((*carried, *derivation.needed, *filtered)))

    def _filter(self, source: Snapshot) -> RowFilter | None:
        text = self.derivation.filter
        return parse_filter(text, source.schema.names) if text else None

    def _histories(self, day: str, advance: Advance) -> Iterator[pa.RecordBatch]:
        if self._table is None:
            derivation = self.derivation
            table = HistoryTable(derivation.history, derivation.time, derivation.label)
            self._table = self._resources.enter_context(table)
        days = (*self._before(day, self.derivation.history_days), day)
        for one in self._table.keep(days):
            self._table.add(one, self._batches(one, self._table.columns, advance))
        return self._table.derive(day, days[0])

    def _windows(self, day: str, advance: Advance) -> Windows:
        window, time = self.derivation.window, self.derivation.time
        assert window is not None
        names = (time, window.entity, *window.channels)
        past = self._before(day, self.derivation.window_days)
        earlier = (batch for one in past for batch in self._batches(one, names, advance))
        return Windows(window, time, earlier, self._batches(day, names, advance))

    def _batches(
        self, day: str, names: Sequence[str], advance: Advance
    ) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """The day's rows in order, each batch with a mask of those that the filter lets in."""
        source = self.input_snapshot(day)
        row_filter = self._filter(source)
        filtered = row_filter.columns if row_filter else ()
        there = [n for n in dict.fromkeys((*names, *filtered)) if n in source.schema.names]
        store = open_store(source.uri)
        for split in cut_splits(source, _PIECE_ROWS, _PIECE_BYTES):
            for batch, numbers in read_rows(store, split, there, _BATCH_ROWS):
                every = np.ones(len(numbers), bool)
                yield (
                    decode_dictionaries(batch),
                    pa.array(row_filter.mask(batch) if row_filter else every),
                )
                advance(batch.num_rows)

    def _pieces(self, source: Snapshot) -> Iterator[Split]:
        """Each file in pieces of a size that can be built in memory; one at least."""
        most = self._fitting(_PIECE_ROWS, _PIECE_BYTES)
        for file in source.files:
            yield from cut_splits(replace(source, files=(file,)), most, _PIECE_BYTES) or [
                Split("", file.key, file.version, (), 0, 0, 0, 0)
            ]

    def _fitting(self, rows: int, size: int) -> int:
        """So many rows, or as many as have windows of so many bytes."""
        window = self.derivation.window
        return min(rows, max(1, size // window.row_bytes)) if window else rows

    def _carried(self, source: Snapshot, split: Split) -> pa.Table:
        names = self._columns(source)
        if not split.rows:
            schema = pa.schema([source.schema.field(name) for name in names])
            return pa.Table.from_batches(
                [decode_dictionaries(pa.RecordBatch.from_pylist([], schema))]
            )
        found = read_rows(open_store(source.uri), split, names, _BATCH_ROWS)
        return pa.Table.from_batches([decode_dictionaries(rows.batch) for rows in found])

    @property
    def _history_schema(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type) for c in self.derivation.derived])

    def _write(self, day: str, split: Split, table: pa.Table) -> str:
        """One derived file, created once; its key."""
        key = self._key(day, f"{split.key.removesuffix('.parquet')}-{split.first_row}.parquet")
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            row_group_size=self._fitting(_GROUP_ROWS, _GROUP_BYTES),
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
        )
        self.store.create(key, sink.getvalue().to_pybytes())
        return key


def remove_before(store: Store, time: datetime, dry_run: bool) -> list[str]:
    """The files of derived days of which all are older than `time`; their markers go first."""
    days: dict[str, list[Object]] = {}
    for found in store.list():
        days.setdefault(found.key.partition("/")[0], []).append(found)
    old = [files for files in days.values() if all(file.modified < time for file in files)]
    keys = [file.key for files in old for file in files]
    keys.sort(key=lambda key: not key.endswith(_MARKER))
    for key in () if dry_run else keys:
        store.delete(key)
    return keys


def _balance(source: Snapshot, files: Sequence[InputFile]) -> None:
    """Every row of the day is in the derived files, once."""
    derived = sum(file.rows for file in files)
    if derived != source.rows:
        raise Refusal(
            f"day {source.day} of {source.uri}: expected {source.rows:,} derived rows, found "
            f"{derived:,}; the input changed meanwhile: run again"
        )


def _date(day: str) -> date:
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise Refusal(
            f"partition value {day!r}: histories and windows look back over days, and expect dates "
            "such as 2026-01-31 (or an input without partitions)"
        ) from None
