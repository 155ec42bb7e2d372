"""The input days that derived rows are made from: their snapshots, their digest, their rows."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace

import duckdb
import numpy as np
import pyarrow as pa

from cluster.lake.days import TEXT, day_order
from cluster.lake.derived.derivation import Derivation
from cluster.lake.input.arrow_types import decode_dictionaries
from cluster.lake.input.filters import RowFilter, parse_filter
from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.partitions import Source, list_days
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import Snapshot, find_drift, take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from models import canonical_json
from models.refusal import Refusal

# Part of the digest. Any change of the bytes of a derived file raises it.
_FORMAT = 1
# A piece of a file is built in memory: at most this many rows, and bytes of windows.
PIECE_ROWS = 1_000_000
PIECE_BYTES = 256 * 1024**2
_BATCH_ROWS = 65_536
_MOST_DRIFTS = 10  # lines of a message

Advance = Callable[[int], None]  # is called with the number of rows read


class DerivationInput:
    """Days of an input as a derivation reads them."""

    def __init__(self, derivation: Derivation, source: Source) -> None:
        self.derivation, self.source = derivation, source
        self._days = list_days(source)
        self._snapshots: dict[str, Snapshot] = {}
        self._digests: dict[str, str] = {}

    def snapshot(self, day: str) -> Snapshot:
        """The snapshot of the day's input, taken once."""
        if day not in self._snapshots:
            self._snapshots[day] = take_snapshot(self.source, day)
        return self._snapshots[day]

    def days_before(self, day: str, count: int) -> tuple[str, ...]:
        """The existing days among the `count` days before this one, in order.

        Integers are days one after the other. A text has no day before it.
        """
        kind, number, _ = day_order(day)
        if kind == TEXT:
            return ()
        span = range(number - count, number)
        return tuple(d for d in self._days if (o := day_order(d))[0] == kind and o[1] in span)

    def earlier_days(self, day: str) -> tuple[str, ...]:
        """The existing days that the rows of `day` look back on, in order."""
        return self.days_before(day, max(self.derivation.history_days, self.derivation.window_days))

    def digest(self, day: str) -> str:
        """SHA-256 of everything that the day's derived rows depend on."""
        if day not in self._digests:
            document = {
                "format": [_FORMAT, duckdb.__version__],
                "derivation": asdict(self.derivation),
                "snapshots": [self.snapshot(d).digest for d in (*self.earlier_days(day), day)],
            }
            self._digests[day] = hashlib.sha256(canonical_json.encode(document)).hexdigest()
        return self._digests[day]

    def count_rows_to_read(self, days: Sequence[str]) -> int:
        """Rows that deriving these days reads, with the days that they look back on."""
        past = {d for day in days for d in self.days_before(day, self.derivation.history_days)}
        read = [*days, *(past | set(days) if self.derivation.history else ())]
        if self.derivation.window:
            read += [d for day in days for d in self.days_before(day, self.derivation.window_days)]
            read += days
        return sum(self.snapshot(day).rows for day in read)

    def set_aside(self, day: str, error: UnreadableFile) -> None:
        """Take the file out of the snapshot of `day`, or of the earlier day, that it belongs to.

        Raises the error where it belongs to none of them.
        """
        for one in (*self.earlier_days(day), day):
            snapshot = self.snapshot(one)
            files = tuple(file for file in snapshot.files if file.key != error.key)
            if len(files) < len(snapshot.files):
                rejected = (*snapshot.rejected, RejectedFile(error.key, error.rule, str(error)))
                self._snapshots[one] = replace(snapshot, files=files, rejected=rejected)
                self._digests.clear()
                return
        raise error

    def check_types(self, day: str) -> None:
        """Raise `Refusal` unless a column has one type in all files of the day and of earlier days.

        Only columns that are read count.
        """
        snapshot = self.snapshot(day)
        drifts = find_drift(snapshot, self._columns(snapshot))
        needed = self.derivation.needed
        for earlier in map(self.snapshot, self.earlier_days(day)):
            one = replace(earlier, files=(snapshot.files[0], *earlier.files))
            drifts += find_drift(one, needed) if earlier.files else ()
        if drifts:
            lines = "\n".join(map(str, drifts[:_MOST_DRIFTS]))
            raise Refusal(
                f"{lines}\nhistories and windows need one type for a column on all days: "
                "write the files with one"
            )

    def read_batches(
        self, day: str, names: Sequence[str], advance: Advance
    ) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """The day's rows in order, each batch with a mask of the rows that pass the filter."""
        snapshot = self.snapshot(day)
        row_filter = self._parse_filter(snapshot)
        filtered = row_filter.columns if row_filter else ()
        there = [n for n in dict.fromkeys((*names, *filtered)) if n in snapshot.schema.names]
        store = open_store(snapshot.uri)
        for split in cut_splits(snapshot, PIECE_ROWS, PIECE_BYTES):
            for batch, numbers in read_rows(store, split, there, _BATCH_ROWS):
                mask = row_filter.mask(batch) if row_filter else np.ones(len(numbers), bool)
                yield decode_dictionaries(batch), pa.array(mask)
                advance(batch.num_rows)

    def read_carried(self, day: str, split: Split) -> pa.Table:
        """The columns that derived rows carry over, of the rows of a split of the day."""
        snapshot = self.snapshot(day)
        names = self._columns(snapshot)
        if not split.rows:
            schema = pa.schema([snapshot.schema.field(name) for name in names])
            return pa.Table.from_batches(
                [decode_dictionaries(pa.RecordBatch.from_pylist([], schema))]
            )
        rows = read_rows(open_store(snapshot.uri), split, names, _BATCH_ROWS)
        return pa.Table.from_batches([decode_dictionaries(batch) for batch, _ in rows])

    def _columns(self, snapshot: Snapshot) -> tuple[str, ...]:
        """The columns that derived rows carry over, and the ones needed for deriving."""
        derivation, names = self.derivation, snapshot.schema.names
        carried = [name for name in derivation.columns if name in names]
        row_filter = self._parse_filter(snapshot)
        filtered = list(row_filter.columns) if row_filter else []
        # The filter of the training may read columns that a night does not have yet.
        with suppress(Refusal):
            filtered += parse_filter(derivation.also or "", names).columns
        return tuple(dict.fromkeys((*carried, *derivation.needed, *filtered)))

    def _parse_filter(self, snapshot: Snapshot) -> RowFilter | None:
        text = self.derivation.filter
        return parse_filter(text, snapshot.schema.names) if text else None
