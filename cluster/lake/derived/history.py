"""Aggregates over the earlier rows of an entity: counts, sums, means, and the labels known by then.

Row `r` is earlier than row `q` if its time is earlier, or if the time is the same and `r` comes
before `q` in the input (by day, file, row). So a row's history never includes the row itself, a
later row or a row of a later day, and ties in time have one answer.

A column over a horizon `h`, after a delay `d`, covers the rows `r` of the entity with

    time(q) - d - h <= time(r)    and    `r`, delayed by `d`, earlier than `q`.

DuckDB computes it with windows over one key in that order. It keeps to its memory limit and spills
to disk. Rows without a time or an entity, and rows that the input's filter leaves out, have no
history (every column is null) and are in no history.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.decoding.labels import decode_labels
from models.refusal import Refusal

_SECOND = 1_000_000  # times are in microseconds, as in Delta
_UNITS = {"m": 60, "h": 3600, "d": 86_400}
DAY = 86_400 * _SECOND
# The key is time * _ORDER + place in the input, in 128 bits: room for 2^40 (1.1e12) rows.
_ORDER = 1 << 40
# DuckDB's default is 80% of the machine, but Ray has given a part of that to others. A night of
# card transactions that looks back on 364,000 rows took 175 MB.
_MEMORY = "2GiB"
_BATCH_ROWS = 65_536  # of DuckDB's answers


def parse_span(text: str) -> int:
    """`30m`, `12h` or `7d` in microseconds. Raises ValueError for any other text.

    >>> parse_span("30m")
    1800000000
    """
    match = re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", text)
    if match is None:
        raise ValueError(f"expected a time such as 30m, 12h or 7d, found {text!r}")
    return int(match[1]) * _UNITS[match[2]] * _SECOND


Kind = Literal["count", "sum", "mean", "distinct", "since_last", "rate"]


@dataclass(frozen=True)
class DerivedColumn:
    """One column that a history adds: a number, null where no row is in its reach."""

    name: str
    kind: Kind
    entity: str
    horizon: str
    delay: str | None = None
    of: str | None = None  # the column that is summed, averaged or counted

    @property
    def type(self) -> pa.DataType:
        return pa.int64() if self.kind in ("count", "distinct") else pa.float64()


@dataclass(frozen=True)
class History:
    """Aggregates over the earlier rows of an entity."""

    entity: str  # the column that names it
    horizons: tuple[str, ...]  # how far each aggregate looks back, as `parse_span` reads it
    of: str | None = None  # a number: its sum and mean
    distinct: str | None = None  # a column: how many values of it
    delay: str | None = None  # rows younger than this are not known yet
    labels: bool = False  # the share of anomalies among the labelled rows, instead

    @property
    def reach(self) -> int:
        """Microseconds from a row back to the oldest row in its history."""
        return max(map(parse_span, self.horizons)) + (parse_span(self.delay) if self.delay else 0)

    @property
    def columns(self) -> tuple[DerivedColumn, ...]:
        return tuple(chain(*(self._of_horizon(h) for h in self.horizons), self._since_last()))

    def _of_horizon(self, horizon: str) -> Iterator[DerivedColumn]:
        after = f"{horizon}_after_{self.delay}" if self.delay else horizon

        def column(kind: Kind, of: str | None = None, name: str = "") -> DerivedColumn:
            names = filter(None, (self.entity, of, name or kind, after))
            return DerivedColumn("_".join(names), kind, self.entity, horizon, self.delay, of)

        yield column("count")
        if self.of:
            yield column("sum", self.of)
            yield column("mean", self.of)
        if self.distinct:
            yield column("distinct", self.distinct)
        if self.labels:
            yield column("rate", name="anomaly_rate")

    def _since_last(self) -> Iterator[DerivedColumn]:
        if not self.delay:
            longest = max(self.horizons, key=parse_span)
            name = f"{self.entity}_seconds_since_last_{longest}"
            yield DerivedColumn(name, "since_last", self.entity, longest)


def list_columns(histories: Sequence[History]) -> tuple[DerivedColumn, ...]:
    """The columns of all histories, each once: equal names are equal columns."""
    return tuple(dict.fromkeys(chain(*(history.columns for history in histories))))


class HistoryTable:
    """The rows that histories look back on, in a temporary DuckDB database; a context manager."""

    def __init__(
        self,
        histories: Sequence[History],
        time: str,
        label: str | None,
        normal: Sequence[str | int] = (),
    ) -> None:
        self.time = time
        self.derived = list_columns(histories)
        self.entities = tuple(dict.fromkeys(h.entity for h in histories))
        self.numbers = tuple(dict.fromkeys(h.of for h in histories if h.of))
        self.values = tuple(dict.fromkeys(h.distinct for h in histories if h.distinct))
        self._normal = normal
        self._labels = label if any(h.labels for h in histories) else None
        self._days: set[str] = set()
        self._rows = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `add` reads. A day may lack the label, because labels come late."""
        labels = (self._labels,) if self._labels else ()
        names = (self.time, *self.entities, *self.numbers, *self.values, *labels)
        return tuple(dict.fromkeys(names))

    def __enter__(self) -> "HistoryTable":
        import duckdb  # which a spec without histories need not import

        self._folder = tempfile.TemporaryDirectory(prefix="anomaray-history-")
        self._duckdb = duckdb.connect(f"{self._folder.name}/rows.duckdb")
        self._duckdb.execute(f"SET memory_limit = '{_MEMORY}'")
        self._duckdb.execute(f"SET temp_directory = '{self._folder.name}'")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._duckdb.close()
        self._folder.cleanup()

    def keep_only(self, days: Sequence[str]) -> tuple[str, ...]:
        """Forget all other days. Returns the days that must be added now, in this order.

        Ties in time are settled by the order of adding. Where a missing day is earlier than one
        that is held, all days must be added again.
        """
        held = [day for day in days if day in self._days]
        if held != list(days[: len(held)]):
            held = []
        for old in self._days - set(held):
            self._duckdb.execute("DELETE FROM history WHERE day = ?", [old])
            self._days.discard(old)
        return tuple(days[len(held) :])

    def add(self, day: str, batches: Iterator[tuple[pa.RecordBatch, pa.Array]]) -> None:
        """Add a day's rows in the order of the input, after the days added before.

        Each batch has a mask of the rows that count. Raises `Refusal` for a column without numbers
        where numbers are needed.
        """
        for batch, counts in batches:
            self._insert(day, batch, counts)
            self._rows += batch.num_rows
        self._days.add(day)

    def derive(self, day: str, days: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The derived columns of the day's rows, in order, looking back on `days`, its own last."""
        columns = ", ".join(f"{self._sql(column)} AS c{i}" for i, column in enumerate(self.derived))
        frames = ", ".join(f"{name} AS ({frame})" for name, frame in self._frames())
        answer = self._duckdb.sql(
            f"""
            SELECT {", ".join(f"c{i}" for i in range(len(self.derived)))} FROM (
                SELECT day, n, {columns} FROM history WHERE list_contains($days, day)
                WINDOW {frames}
            ) WHERE day = $day ORDER BY n
            """,  # noqa: S608 - every name in it is made here # nosec B608
            params={"day": day, "days": list(days)},
        )
        assert answer is not None  # a SELECT has an answer
        names = [column.name for column in self.derived]
        for batch in answer.to_arrow_reader(_BATCH_ROWS):
            yield batch.rename_columns(names)

    def _insert(self, day: str, batch: pa.RecordBatch, counts: pa.Array) -> None:
        rows = batch.num_rows
        time = to_microseconds(batch.column(self.time))
        time = pc.if_else(counts, time, pa.scalar(None, time.type))
        n = pa.array(np.arange(self._rows, self._rows + rows))
        parts: dict[str, pa.Array] = {"day": pa.repeat(day, rows), "n": n, "t": time}
        for i, name in enumerate(self.entities):
            parts[f"e{i}"] = batch.column(name)
        for i, name in enumerate(self.numbers):
            parts[f"v{i}"] = finite_numbers(name, batch.column(name))
        for i, name in enumerate(self.values):
            parts[f"d{i}"] = batch.column(name)
        if self._labels:
            there = self._labels in batch.schema.names
            label = batch.column(self._labels) if there else pa.nulls(rows)
            parts["y"] = pa.array(decode_labels(label, self._normal).values, from_pandas=True)
        self._write(pa.table(parts))

    def _write(self, rows: pa.Table) -> None:
        self._duckdb.register("batch", rows)
        select = f"SELECT *, t::HUGEINT * {_ORDER} + n AS key FROM batch"  # noqa: S608 # nosec B608
        if not self._rows:
            self._duckdb.execute(f"CREATE OR REPLACE TABLE history AS {select} LIMIT 0")
        self._duckdb.execute(f"INSERT INTO history {select}")
        self._duckdb.unregister("batch")

    def _frame(self, column: DerivedColumn) -> tuple[str, str, str]:
        return column.entity, column.horizon, column.delay or ""

    def _names(self) -> dict[tuple[str, str, str], str]:
        frames = dict.fromkeys(self._frame(column) for column in self.derived)
        return {frame: f"w{i}" for i, frame in enumerate(frames)}

    def _frames(self) -> Iterator[tuple[str, str]]:
        """The SQL windows by name: from the first key of the horizon to the last one before."""
        for (entity, horizon, delay), name in self._names().items():
            late = (parse_span(delay) if delay else 0) * _ORDER
            oldest = late + parse_span(horizon) * _ORDER
            yield (
                name,
                f"PARTITION BY e{self.entities.index(entity)} ORDER BY key RANGE BETWEEN "
                f"({oldest}::HUGEINT + n) PRECEDING AND {late + 1}::HUGEINT PRECEDING",
            )

    def _sql(self, column: DerivedColumn) -> str:
        over = f"OVER {self._names()[self._frame(column)]}"
        match column.kind:
            case "count":
                sql = f"count(*) {over}"
            case "sum":
                sql = f"coalesce(sum(v{self._number(column)}) {over}, 0)"
            case "mean":
                sql = f"avg(v{self._number(column)}) {over}"
            case "distinct":
                assert column.of is not None
                sql = f"count(DISTINCT d{self.values.index(column.of)}) {over}"
            case "since_last":
                sql = f"(t - max(t) {over}) / {_SECOND}.0"
            case "rate":
                sql = f"avg((y > 0.5)::INTEGER) {over}"
        entity = f"e{self.entities.index(column.entity)}"
        return f"CASE WHEN t IS NOT NULL AND {entity} IS NOT NULL THEN {sql} END"

    def _number(self, column: DerivedColumn) -> int:
        assert column.of is not None
        return self.numbers.index(column.of)


def to_microseconds(time: pa.Array) -> pa.Array:
    """int64: microseconds since 1970 in UTC. A time without a zone is taken as UTC."""
    kind = time.type
    if not (pa.types.is_timestamp(kind) or pa.types.is_date32(kind)):
        raise Refusal(f"expected a time as a timestamp or a date32, found {kind}; cast the input")
    # safe=False only drops nanoseconds.
    return time.cast(pa.timestamp("us"), safe=False).cast(pa.int64())


def finite_numbers(name: str, values: pa.Array) -> pa.Array:
    """float64: the finite values. Others become null: one of them would spoil every sum."""
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise Refusal(f"column {name!r}: expected a number, found {kind}; cast it in the input")
    values = values.cast(pa.float64(), safe=False)
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, values.type))
