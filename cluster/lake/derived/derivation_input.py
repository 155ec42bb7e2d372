"""The input days that derived rows are made from: their snapshots, their digest, their rows."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa

from cluster.lake.days import TEXT, day_order
from cluster.lake.derived.derivation import Derivation
from cluster.lake.input.arrow_types import decode_dictionaries
from cluster.lake.input.file_types import find_common_schema, find_drift
from cluster.lake.input.filters import RowFilter, parse_filter
from cluster.lake.input.input_file import InputFile, RejectedFile
from cluster.lake.input.partitions import Source, list_days
from cluster.lake.input.reading import open_split, read_rows
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from models import canonical_json
from models.decoding.times import decode_times
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
        self._types: dict[str, pa.Schema] = {}

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
            import duckdb

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
                self._types.clear()
                return
        raise error

    def check_types(self, day: str) -> None:
        """Raise `Refusal` unless a column has a common type in all files of the day, and of earlier
        days where they need it.

        Only columns that are read count.
        """
        snapshot = self.snapshot(day)
        drifts = find_drift(snapshot.files, self._columns(snapshot))
        drifts += find_drift(self._all_files(day), self.derivation.needed)
        if drifts:
            lines = "\n".join(map(str, dict.fromkeys(drifts[:_MOST_DRIFTS])))
            raise Refusal(
                f"{lines}\nhistories and windows need one type for a column on all days: "
                "write the files with one"
            )

    def types(self, day: str) -> pa.Schema:
        """The types in which the rows of the day, and of the days that it looks back on, are
        read."""
        if day not in self._types:
            self._types[day] = find_common_schema(self._all_files(day))
        return self._types[day]

    def _all_files(self, day: str) -> list[InputFile]:
        return [f for d in (*self.earlier_days(day), day) for f in self.snapshot(d).files]

    def read_batches(
        self, day: str, names: Sequence[str], types: pa.Schema, advance: Advance
    ) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
        """The day's rows in order, in these types and with the time as a timestamp, each batch
        with a mask of the rows that pass the filter."""
        snapshot = self.snapshot(day)
        row_filter = self._parse_filter(snapshot)
        filtered = row_filter.columns if row_filter else ()
        there = [n for n in dict.fromkeys((*names, *filtered)) if n in snapshot.schema.names]
        store = open_store(snapshot.uri)
        for split in cut_splits(snapshot, PIECE_ROWS, PIECE_BYTES):
            for batch, numbers in read_rows(store, split, there, _BATCH_ROWS, types=types):
                mask = row_filter.mask(batch) if row_filter else np.ones(len(numbers), bool)
                yield self._decode(decode_dictionaries(batch)), pa.array(mask)
                advance(batch.num_rows)

    def read_carried(self, day: str, split: Split) -> pa.Table:
        """The columns that derived rows carry over, of the rows of a split of the day."""
        snapshot = self.snapshot(day)
        names = self._columns(snapshot)
        schema = pa.schema([snapshot.schema.field(name) for name in names])
        if not split.rows:
            return schema.empty_table()
        with open_split(open_store(snapshot.uri), split, types=schema) as source:
            source.prefetch(names)
            rows = source.read_rows(names, _BATCH_ROWS)
            table = pa.Table.from_batches([decode_dictionaries(batch) for batch, _ in rows])
            for name in set(source.changed) & set(self.derivation.exact):
                first = min(source.changed[name])
                raise Refusal(
                    f"{split.key}: column {name!r} of row {first:,} does not fit the type "
                    f"{schema.field(name).type} that the files of {day} have in common: write "
                    "them with one type"
                )
        return table.cast(schema)  # keeps the metadata

    def _decode(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The time as a timestamp; decimals as floats, or as texts where they name something."""
        columns = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if name == self.derivation.time:
                column = decode_times(column, self.derivation.time_unit).instants
            elif pa.types.is_decimal(column.type) and name in self.derivation.numbers:
                column = column.cast(pa.float64(), safe=False)
            elif pa.types.is_decimal(column.type):
                column = column.cast(pa.string())
            columns.append(column)
        return pa.record_batch(columns, batch.schema.names)

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
