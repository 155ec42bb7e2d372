"""Read the committed flags as a pandas frame, by SQL, on the terminal or as plain Parquet.

Every call reads one version of the table, even if a run commits meanwhile.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.lake.days import day_order, name_day, name_nearest
from cluster.lake.output.committed import open_beside
from cluster.lake.output.schemas import FLAGS, QUARANTINE, SCORES
from cluster.lake.output.table import list_days, read_rows, was_committed
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store, open_table_store
from cluster.lake.storage.store import Missing, Store
from cluster.lake.types.python_values import has_far_times, to_python
from jobs.spec.columns import FLAG_COLUMNS
from jobs.sql import View
from jobs.sql import run as run_sql
from jobs.terminal.exact_values import list_uuids, restore_uuid, show_exactly, show_moment
from jobs.terminal.printable import LIMIT, printable
from models import canonical_json
from models.columns import Roles, TimeUnit
from models.refusal import Refusal

_MARKER = "_anomaray_export.json"  # readers of Parquet skip names that begin with an underscore
_MARKER_FORMAT = 1
_PART = re.compile(r"day=[^/]+/part-\d{10}\.parquet")
# Severities that 1 row in 1,000, and 1 in 100,000, of the calibration reaches
# (models/scores/severity.py).
_HIGH, _HIGHEST = 75.0, 90.0
_CELL = 60  # characters of a value in a terminal table


def read(uri: str, day: str | None = None) -> pd.DataFrame:
    """Read the flags of one day, or of all days, from the table at `uri`; the most severe first.

    The frame has the columns of the table (docs/outputs.md), with times in UTC; it is empty for a
    day that was scored and has no flags. Raises `Refusal` if there is no table, and for a day that
    was not scored.
    """
    opened = _open(uri)
    days = _list(_find_day(opened, day))
    table = read_rows(opened, open_table_store(uri), days).read_all()
    return _frame(table.sort_by([("severity", "descending"), ("score", "descending")]))


def read_beside(output: str, name: str, day: str) -> pd.DataFrame:
    """Read a day of `quarantine` or `scores`, of the run that the day's flags are of.

    `output` is the URI of the watch's output. The frame is empty where the day has no such rows.
    Raises `Refusal` for another name.
    """
    if name not in (QUARANTINE, SCORES):
        raise Refusal(f"table {name!r}: expected {QUARANTINE!r} or {SCORES!r}")
    store = open_store(output)
    beside = open_beside(open_table(store.child(FLAGS)), store, name, day)
    return pd.DataFrame() if beside is None else _frame(beside.read().read_all())


def query(sql: str, uri: str, day: str | None = None) -> pd.DataFrame:
    """Run one SQL statement over the view `flags` in DuckDB; times are in UTC.

    The tables `quarantine` and `scores` beside the flags, if a run has written them, are views too:
    of each day the rows of the run that the flags are of.

    The statement sees the views alone: no file, network, extension or setting, and has bounds of
    time and memory (`jobs/sql.py`). Raises `Refusal` with DuckDB's message for SQL that fails, if
    there is no table, and for a day that was not scored.
    """
    table, store = _open(uri), open_table_store(uri)
    day = _find_day(table, day)
    schema = read_rows(table, store, []).schema
    views = {FLAGS: View(schema, lambda: read_rows(table, store, _list(day)))}
    output = open_store(uri.rstrip("/").rpartition("/")[0])
    for name in (QUARANTINE, SCORES):
        if (beside := open_beside(table, output, name, day)) is not None:
            views[name] = View(beside.schema, beside.read)
    return _frame(run_sql(sql, views))


def _list(day: str | None) -> list[str] | None:
    return None if day is None else [day]


def _open(uri: str) -> DeltaTable:
    table = open_table(open_table_store(uri))
    if table is None:
        raise Refusal(
            f"{uri}: expected a table of flags, found none; `score SPEC --day DAY` writes the first"
        )
    return table


def _find_day(table: DeltaTable, text: str | None) -> str | None:
    """The scored day that a person writes as `text`. Raises `Refusal` if it was not scored."""
    if text is None or was_committed(table, text):
        return text
    days = list_days(table)
    day = name_day(text, days)
    if not was_committed(table, day):
        raise Refusal(
            f"{day}: expected a day that was scored, but the table lacks it: "
            f"{name_nearest(day, days)}; `score SPEC --day {day}` scores it"
        )
    return day


def _frame(table: pa.Table) -> pd.DataFrame:
    # Integers beside nulls stay integers: pandas would make floats of them.
    far = [place for place, column in enumerate(table.columns) if has_far_times(column)]
    kept = [place for place in range(table.num_columns) if place not in far]
    frame: pd.DataFrame = table.select(kept).to_pandas(integer_object_nulls=True)
    for place in far:
        column = pd.Series(to_python(table.column(place)), dtype=object)
        frame.insert(place, table.column_names[place], column, allow_duplicates=True)
    for name in list_uuids(table.schema):
        frame[name] = frame[name].map(restore_uuid)
    return frame


def to_json(frame: pd.DataFrame) -> str:
    """The rows as a JSON list, without loss (see `exact_values`)."""
    return json.dumps([show_exactly(row) for row in frame.to_dict("records")])


# Export as plain Parquet, for readers that do not know Delta.


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export; without rows and digest while it is only planned."""

    key: str
    rows: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Export:
    """The record of an export, stored at its target as `_anomaray_export.json`."""

    format: int
    source: str
    version: int  # of the Delta table
    complete: bool  # False while files are written, and after a crash
    rows: int
    files: tuple[ExportedFile, ...]  # every file of ours that may be at the target

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


def export(uri: str, target: str) -> Export:
    """Write all flags of the table at `uri` as `day=…/part-….parquet` below `target`.

    An earlier export at the target is replaced: new files are written first, each by one PUT, then
    the old ones are deleted. Raises `Refusal` for a target that holds anything else. One day at a
    time is in memory. Run one export to a target at a time: only two first exports are told apart.
    """
    table, store, to = _open(uri), open_table_store(uri), open_store(target)
    days = sorted((partition["day"] for partition in table.partitions()), key=day_order)
    keys = {day: f"day={quote(day, safe='')}/part-{table.version():010d}.parquet" for day in days}
    earlier = _read_earlier_export(to)
    # The marker names every file before it is written, so that a crash leaves no unknown file.
    planned = [ExportedFile(key) for key in keys.values()]
    started = Export(_MARKER_FORMAT, uri, table.version(), False, 0, (*earlier, *planned))
    _begin(to, started, first=not to.exists(_MARKER))
    written = []
    for day, key in keys.items():
        rows = read_rows(table, store, [day]).read_all().drop_columns(["day"])
        written.append(_put(to, key, rows))
    for file in earlier:
        if file.key not in keys.values():
            to.delete(file.key)
    total = sum(file.rows for file in written)
    done = Export(_MARKER_FORMAT, uri, table.version(), True, total, tuple(written))
    to.put(_MARKER, done.to_json())
    return done


def _read_earlier_export(store: Store) -> tuple[ExportedFile, ...]:
    """The files of an earlier export; none for an empty target; `Refusal` for other objects."""
    try:
        marker = canonical_json.decode(store.read(_MARKER), _MARKER)
    except Missing:
        found = store.list()
        if found:
            raise Refusal(
                f"{store.uri}: expected an empty target or an earlier export, found "
                f"{len(found):,} other objects ({found[0].key}, …); choose another target"
            ) from None
        return ()
    except ValueError:
        marker = None
    files = marker.get("files") if marker else None
    if not marker or not isinstance(files, list) or marker.get("format") != _MARKER_FORMAT:
        raise Refusal(f"{store.uri}/{_MARKER} was not written by this version; move it away")
    for file in files:
        # The named files are deleted later, so only names that an export writes are accepted.
        if not isinstance(file, dict) or not _PART.fullmatch(str(file.get("key"))):
            raise Refusal(f"{store.uri}/{_MARKER} names {file!r}, which no export writes")
    return tuple(ExportedFile(file["key"]) for file in files)


def _begin(store: Store, started: Export, first: bool) -> None:
    if not first:
        store.put(_MARKER, started.to_json())
    elif not store.create(_MARKER, started.to_json()):
        raise Refusal(f"{store.uri}: another export has just begun here; wait until it ends")


def _put(store: Store, key: str, rows: pa.Table) -> ExportedFile:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd", write_page_checksum=True)
    store.put(key, buffer.getvalue())
    return ExportedFile(key, rows.num_rows, hashlib.sha256(buffer.getbuffer()).hexdigest())


# The terminal.


def show(frame: pd.DataFrame, limit: int, console: Console, roles: Roles | None = None) -> None:
    """Print the first `limit` rows: flags with severity, time, who and why; other frames unchanged.

    Flags fit a terminal of 80 columns, and their ids stay in one piece.
    Log fields are hostile input: control characters and direction marks are printed as escapes,
    rich's markup as plain text.
    """
    flags = {"severity", "score", "reasons"} <= set(frame.columns)
    table = _flags_table(frame.head(limit), roles) if flags else _plain_table(frame.head(limit))
    console.print(table)
    if len(frame) > limit:
        console.print(f"{limit:,} of {len(frame):,} rows", style="dim", highlight=False)


def _flags_table(frame: pd.DataFrame, roles: Roles | None) -> Table:
    """When, who and why on lines of their own: columns would break ids on 80 columns."""
    time = roles.time if roles else None
    who = [*roles.entity, *roles.id] if roles else [*frame.columns.difference([*FLAG_COLUMNS])]
    who = [name for name in dict.fromkeys(who) if name in frame.columns and name != time]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("severity", justify="right", no_wrap=True)
    table.add_column("when, who and why" if time else "who and why", overflow="fold")
    for row in frame.to_dict("records"):
        severity = float(row["severity"])
        style = "bold red" if severity >= _HIGHEST else "yellow" if severity >= _HIGH else ""
        lines = [_format_named(name, row[name]) for name in who]
        if time in frame.columns:
            lines.insert(0, _format_time(row[time], roles.time_unit if roles else None))
        lines.append(_format_reason(row["reasons"]))
        table.add_row(Text(f"{severity:.1f}", style=style), Text("\n").join(lines))
    return table


def _plain_table(frame: pd.DataFrame) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    numbers = set(frame.select_dtypes("number").columns)
    for column in frame.columns:
        header = Text(printable(str(column), _CELL))
        table.add_column(header, justify="right" if column in numbers else "left", overflow="fold")
    for values in frame.itertuples(index=False, name=None):
        table.add_row(*map(_format_value, values))
    return table


def _format_named(column: str, value: Any) -> Text:
    return Text.assemble((printable(column, _CELL) + " ", "dim"), _format_value(value, LIMIT))


def _format_reason(reasons: Iterable[dict[str, Any]] | None) -> Text:
    """The reason that contributes most; the run card has the others."""
    most = max(reasons if reasons is not None else (), key=_contribution, default=None)
    if most is None:
        return Text("–", style="dim")
    feature, observed, expected = (
        printable(str(most[part]), _CELL) for part in ("feature", "observed", "expected")
    )
    usual = most.get("usual")
    return Text.assemble(
        feature,
        " ",
        (observed, "bold"),
        (" where ", "dim"),
        expected,
        (" was expected", "dim"),
        (f"; usual: {printable(str(usual), _CELL)}" if usual else "", "dim"),
    )


def _contribution(reason: dict[str, Any]) -> float:
    return float(reason["contribution"])


def _format_time(value: Any, unit: TimeUnit | None) -> Text:
    return _format_value(show_moment(value, unit) if unit else value)


def _format_value(value: Any, limit: int = _CELL) -> Text:
    if isinstance(value, datetime) and value is not pd.NaT:
        return Text(f"{value:%Y-%m-%d %H:%M:%S}{f'.{value:%f}' if value.microsecond else ''}")
    shown = show_exactly(value)
    if shown is None:
        return Text("–", style="dim")
    return Text(printable(shown if isinstance(shown, str) else str(shown), limit))
