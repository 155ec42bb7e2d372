"""Windows over time: for each row the last rows of its entity, the row itself included.

Rows are in the order of `history`: by time, then by place in the input. Only plain columns are
held in memory. The windows, which repeat each row `length` times, are built a few rows at a time.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.derived.history import finite_numbers, parse_span, to_microseconds

WINDOW = "window"
SHORT = "window_is_short"


@dataclass(frozen=True)
class Window:
    """The last `length` rows of an entity, none older than `horizon`."""

    entity: str | None  # the column that names it; None: all rows are of one
    length: int  # rows, the row itself included
    channels: tuple[str, ...]  # columns of numbers
    horizon: str = "1d"  # how far back a window may begin, for `history.parse_span`

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it is made of, apart from the time."""
        return (*((self.entity,) if self.entity else ()), *self.channels)

    @property
    def reach(self) -> int:
        """Microseconds from a row back to the oldest row in its window."""
        return parse_span(self.horizon)

    @property
    def row_bytes(self) -> int:
        return self.length * len(self.channels) * 4

    @property
    def field(self) -> pa.Field:
        """The column `window`: float32 [steps, channels]; the channels' names are its metadata."""
        kind = pa.list_(pa.list_(pa.float32(), len(self.channels)), self.length)
        return pa.field(WINDOW, kind, metadata={b"channels": json.dumps(self.channels).encode()})


class Windows:
    """The windows of a day's rows."""

    def __init__(
        self,
        window: Window,
        time: str,
        past: Iterable[tuple[pa.RecordBatch, pa.Array]],
        today: Iterable[tuple[pa.RecordBatch, pa.Array]],
    ) -> None:
        """The batches are in the order of the input, each with a mask of the rows that count."""
        self.window = window
        entities: list[pa.Array] = []
        times: list[np.ndarray] = []
        values: list[np.ndarray] = []
        usable: list[np.ndarray] = []
        sizes = []
        for batches in (past, today):
            before = sum(map(len, times))
            for batch, counts in batches:
                at = to_microseconds(batch.column(time))
                entity = batch.column(window.entity) if window.entity else _name_one(batch)
                whole = pc.and_(counts, pc.and_(pc.is_valid(entity), pc.is_valid(at)))
                usable.append(whole.to_numpy(zero_copy_only=False))
                entities.append(entity)
                times.append(at.fill_null(0).to_numpy())
                values.append(_matrix(batch, window.channels))
            sizes.append(sum(map(len, times)) - before)
        self._past = sizes[0]
        self._sort(entities, _concatenate(times, np.int64), _concatenate(usable, np.bool_), values)

    def build(self, first: int, stop: int) -> pa.Table:
        """Windows of the day's rows `first` to `stop`, and whether each has too few rows.

        Missing rows come first, as NaN. A row without a time or an entity, and a row that the
        input's filter leaves out, has a window of NaN only.
        """
        place = self._place[self._past + first : self._past + stop]
        back = np.arange(1 - self.window.length, 1)
        steps = place[:, None] + back  # [rows, length], places in the order of entity and time
        places = np.maximum(steps, 0)
        known = (steps >= self._start[place][:, None]) & self._usable[place][:, None]
        known &= self._time[places] >= (self._time[place] - self.window.reach)[:, None]
        values = self._values[places]
        values[~known] = np.nan
        flat = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[2])
        windows = pa.FixedSizeListArray.from_arrays(flat, self.window.length)
        schema = pa.schema([self.window.field, pa.field(SHORT, pa.bool_())])
        return pa.table([windows, pa.array(~known[:, 0])], schema=schema)

    def _sort(
        self,
        entities: list[pa.Array],
        time: np.ndarray,
        usable: np.ndarray,
        values: list[np.ndarray],
    ) -> None:
        codes = np.zeros(len(time), np.int64)
        if entities:
            encoded = pa.chunked_array(entities).dictionary_encode().combine_chunks()
            codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
        codes[~usable] = -1  # first, and in no other row's window
        order = np.lexsort((time, codes))  # stable: ties stay in the order of the input
        self._place = np.empty(len(order), np.int64)
        self._place[order] = np.arange(len(order))
        codes = codes[order]
        fresh = np.flatnonzero(np.diff(codes, prepend=np.nan) != 0)
        self._start = np.repeat(fresh, np.diff(fresh, append=len(codes)))
        self._time, self._usable = time[order], usable[order]
        width = len(self.window.channels)
        self._values = np.concatenate(values or [np.empty((0, width), np.float32)])[order]


def _name_one(batch: pa.RecordBatch) -> pa.Array:
    return pa.repeat(0, batch.num_rows)


def _matrix(batch: pa.RecordBatch, channels: tuple[str, ...]) -> np.ndarray:
    """float32 [rows, channels]; NaN where there is no finite number."""
    matrix = np.empty((batch.num_rows, len(channels)), np.float32)
    for place, name in enumerate(channels):
        matrix[:, place] = finite_numbers(name, batch.column(name)).fill_null(np.nan).to_numpy()
    return matrix


def _concatenate(parts: list[np.ndarray], kind: type[np.generic]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, kind)
