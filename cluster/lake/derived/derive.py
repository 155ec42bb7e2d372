"""Write rows anew with columns that need other rows: histories and windows.

The derived rows of a day are in `<target>/<digest>/`, and are read from there like any input. The
digest covers the derivation and the snapshots of the day and of the days that it looks back on, so
derived rows are never stale, and a changed input makes new ones. A derived file has the key of the
file that its rows come from, and the number of the first row: row 7 of
`<digest>/day=D/part-3-1000.parquet` is row 1007 of `day=D/part-3.parquet`.

Each file is created whole, and the marker, which lists them, last: without it the day is not
derived. Equal inputs give equal bytes, so a second attempt, at the same time or after a crash,
finds its own files.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.derived.alignment import RowStream, join_columns
from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.derivation_input import (
    PIECE_BYTES,
    PIECE_ROWS,
    Advance,
    DerivationInput,
)
from cluster.lake.derived.history import HistoryTable
from cluster.lake.derived.windows import Windows
from cluster.lake.input.input_file import InputFile
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import Snapshot, inspect_files
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Object, Store
from models import canonical_json
from models.refusal import Refusal

_MARKER = "_derived.json"
# The most rows, and bytes of windows, of a derived file's row group.
_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class DerivedDay:
    """The marker of a derived day."""

    day: str
    files: tuple[str, ...]  # keys, in the order of the rows

    def to_bytes(self) -> bytes:
        return canonical_json.encode({"day": self.day, "files": self.files})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "DerivedDay":
        document = canonical_json.decode(data, where)
        return cls(document["day"], tuple(document["files"]))


class Deriver:
    """Derives days of one input; a context manager. Fastest where days are derived in order."""

    def __init__(self, derivation: Derivation, source: Source, target: str) -> None:
        self.derivation = derivation
        self.input = DerivationInput(derivation, source)
        self.store = open_store(target)
        self._resources = ExitStack()
        self._table: HistoryTable | None = None
        self._types = pa.schema([])  # of the rows in the table

    def __enter__(self) -> "Deriver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    def is_derived(self, day: str) -> bool:
        """Whether there is nothing to do, also because the day has no readable files."""
        return not self.input.snapshot(day).files or self.store.exists(self._key(day, _MARKER))

    def take_snapshot(self, day: str) -> Snapshot:
        """The snapshot of the derived day. A day without readable files has its input's."""
        source = self.input.snapshot(day)
        if not source.files:
            return replace(source, uri=self.store.uri)
        marker = self._key(day, _MARKER)
        data = self.store.read(marker)
        derived = DerivedDay.from_bytes(data, marker)
        self.store.put(marker, data)  # so that `remove_before` sees that it is used
        files, schema = inspect_files(self.store.uri, derived.files)
        _check_balance(source, files)
        # The key is the version: it has the digest of all that the rows are derived from, and a
        # file that is derived anew has the same rows.
        files = tuple(replace(file, version="") for file in files)
        return Snapshot(
            uri=self.store.uri,
            day=day,
            files=files,
            rejected=source.rejected,
            stray=source.stray,
            schema=schema,
            version=source.version,
            input_digest=source.digest,
            derivation=self.input.digest(day),
        )

    def derive(self, day: str, advance: Advance = lambda rows: None) -> None:
        """Write the day's derived rows, and then the marker.

        `advance` is called with the number of rows read. A file that turns out to be unreadable is
        set aside, and the day derived again without it, under another digest. Raises as `read_rows`
        does otherwise, and `Refusal` for a column whose type differs between days.
        """
        while True:
            try:
                return self._derive(day, advance)
            except UnreadableFile as error:
                self.input.set_aside(day, error)
                self._resources.close()  # the history holds rows of the file
                self._table = None

    def _derive(self, day: str, advance: Advance) -> None:
        source = self.input.snapshot(day)
        if not source.files:
            return
        self.input.check_types(day)
        histories: Iterable[pa.RecordBatch] = ()
        if self.derivation.history and source.rows:
            histories = self._read_histories(day, advance)
        fields = [pa.field(column.name, column.type) for column in self.derivation.derived]
        added = RowStream(pa.schema(fields), iter(histories))
        windows = self._read_windows(day, advance) if self.derivation.window else None
        place, keys = 0, []
        for split in self._cut_pieces(source):
            rows = self.input.read_carried(day, split)
            stop = place + rows.num_rows
            parts = [rows, added.next_rows(rows.num_rows)]
            if windows is not None:
                parts.append(windows.build(place, stop))
            keys.append(self._write(day, split, join_columns(parts)))
            place = stop
            advance(rows.num_rows)
        files, _ = inspect_files(self.store.uri, keys)
        _check_balance(source, files)
        self.store.create(self._key(day, _MARKER), DerivedDay(day, tuple(keys)).to_bytes())

    def _read_histories(self, day: str, advance: Advance) -> Iterator[pa.RecordBatch]:
        types = self.input.types(day)
        if self._table is None or types != self._types:
            self._resources.close()
            self._types = types
            derivation = self.derivation
            table = HistoryTable(
                derivation.history, derivation.time, derivation.label, derivation.normal
            )
            self._table = self._resources.enter_context(table)
        days = (*self.input.days_before(day, self.derivation.history_days), day)
        for one in self._table.keep_only(days):
            rows = self.input.read_batches(one, self._table.columns, types, advance)
            self._table.add(one, rows)
        return self._table.derive(day, days)

    def _read_windows(self, day: str, advance: Advance) -> Windows:
        window, time = self.derivation.window, self.derivation.time
        assert window is not None
        names = (time, *window.columns)
        past = self.input.days_before(day, self.derivation.window_days)
        types = self.input.types(day)
        earlier = (b for d in past for b in self.input.read_batches(d, names, types, advance))
        return Windows(window, time, earlier, self.input.read_batches(day, names, types, advance))

    def _cut_pieces(self, source: Snapshot) -> Iterator[Split]:
        """Each file in pieces that can be built in memory; a file without rows in one."""
        most = self._limit_rows(PIECE_ROWS, PIECE_BYTES)
        for file in source.files:
            yield from cut_splits(replace(source, files=(file,)), most, PIECE_BYTES) or [
                Split("", file.key, file.version, (), 0, 0, 0, 0)
            ]

    def _limit_rows(self, rows: int, size: int) -> int:
        """`rows`, or fewer if their windows have more than `size` bytes."""
        window = self.derivation.window
        return min(rows, max(1, size // window.row_bytes)) if window else rows

    def _key(self, day: str, name: str) -> str:
        return f"{self.input.digest(day)[:32]}/{name}"

    def _write(self, day: str, split: Split, table: pa.Table) -> str:
        """Create one derived file; its key."""
        key = self._key(day, _name_piece(split))
        sink = pa.BufferOutputStream()
        pq.write_table(
            table,
            sink,
            row_group_size=self._limit_rows(_GROUP_ROWS, _GROUP_BYTES),
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
        )
        self.store.create(key, sink.getvalue().to_pybytes())
        return key


def _name_piece(split: Split) -> str:
    """`part-3-1000.parquet` for `part-3.parquet`; a file of another name has `@` for the dash, so
    that `part-3` and `part-3.parquet` stay two."""
    name = split.key.removesuffix(".parquet")
    return f"{name}{'@' if name == split.key else '-'}{split.first_row}.parquet"


def remove_before(store: Store, time: datetime, dry_run: bool) -> list[str]:
    """Remove derived days that were neither written nor used since `time`; the keys of their
    files."""
    days: dict[str, list[Object]] = {}
    for found in store.list():
        days.setdefault(found.key.partition("/")[0], []).append(found)
    old = [files for files in days.values() if all(file.modified < time for file in files)]
    keys = [file.key for files in old for file in files]
    keys.sort(key=lambda key: not key.endswith(_MARKER))  # markers first
    for key in () if dry_run else keys:
        store.delete(key)
    return keys


def _check_balance(source: Snapshot, files: Sequence[InputFile]) -> None:
    """Every row of the day must be in the derived files, once."""
    derived = sum(file.rows for file in files)
    if derived != source.rows:
        raise Refusal(
            f"day {source.day} of {source.uri}: expected {source.rows:,} derived rows, found "
            f"{derived:,}; the input changed in the meantime: run again"
        )
