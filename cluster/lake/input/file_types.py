"""One schema for the files of an input, and the files that do not fit it.

Files without rows count only where there are no others: an empty pandas frame has no types.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from cluster.lake.input.input_file import FileColumn, InputFile
from cluster.lake.types.unify import unify

Layout = tuple[FileColumn, ...]
Fits = Callable[[str, pa.DataType], bool]

_ZONE = "; write the times of all files with a zone, or of all without"
_BEYOND = "which cannot hold the integers beyond 2^53 of other files"


@dataclass(frozen=True)
class Drift:
    """A column that one file has in a type without a common one, several times, or not at all."""

    key: str
    column: str
    expected: str
    found: str | None  # None: the file has no such column

    def __str__(self) -> str:
        found = f"found {self.found}" if self.found else "the file has no such column"
        return f"{self.key}: column {self.column!r}: expected {self.expected}, {found}"


def find_common_schema(files: Sequence[InputFile]) -> pa.Schema:
    """The columns of all files in the types that they are read in.

    Where a column's types have no common one, the type is that of most rows, and `find_drift`
    names the other files. A name that a file has twice is there twice.
    """
    rows = _count_rows(files)
    fields: list[pa.Field] = []
    for layout in rows:
        known = {field.name for field in fields}
        fields += [_make_field(column.name, rows) for column in layout if column.name not in known]
    return pa.schema(fields)


def find_drift(
    files: Sequence[InputFile],
    needed: Iterable[str],
    fits: Fits = lambda name, kind: True,
    exact: Collection[str] = (),
) -> tuple[Drift, ...]:
    """Where a file lacks a needed column, or has it in a type without a common one.

    `fits` says which types of a column are usable: a file with another type is named even where
    most files have it. `exact` are the columns whose values may not be rounded. Columns that no
    file has are left out.
    """
    rows = _count_rows(files)
    odd: dict[Layout, dict[str, tuple[str, str | None]]] = {layout: {} for layout in rows}
    for name in dict.fromkeys(needed):
        for layout, what in _find_odd(name, rows, fits, name in exact).items():
            odd[layout][name] = what
    return tuple(
        Drift(file.key, name, expected, found)
        for file in files
        for name, (expected, found) in odd.get(file.columns, {}).items()
        if file.rows or not any(one.rows for one in files)
    )


def _count_rows(files: Iterable[InputFile]) -> dict[Layout, int]:
    """Rows by layout, in the order of the files; there are few layouts."""
    rows: dict[Layout, int] = {}
    for file in files:
        rows[file.columns] = rows.get(file.columns, 0) + file.rows
    return {layout: count for layout, count in rows.items() if count} or rows


def _find(name: str, layout: Layout) -> FileColumn | None:
    return next((column for column in layout if column.name == name), None)


def _find_all(name: str, rows: dict[Layout, int]) -> dict[Layout, FileColumn]:
    """The column of each layout that has it.

    INT96 says nothing of a zone. Beside times with a zone it is in UTC, as Spark and Hive write it.
    """
    found = {layout: column for layout in rows if (column := _find(name, layout))}
    if not any(_has_zone(column.type) for column in found.values()):
        return found
    return {
        layout: replace(column, type=pa.timestamp("us", "UTC")) if column.int96 else column
        for layout, column in found.items()
    }


def _has_zone(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _count(name: str, layout: Layout) -> int:
    return sum(column.name == name for column in layout)


def _make_field(name: str, rows: dict[Layout, int]) -> pa.Field:
    columns = _find_all(name, rows)
    first = next(iter(columns.values()))
    metadata: dict[Any, Any] = {}
    if first.channels:
        metadata["channels"] = first.channels
    if all(column.uuid for column in columns.values()):
        metadata["type"] = "uuid"
    kind = _choose_type(columns, rows)
    return pa.field(name, kind, metadata=metadata or None)


def _choose_type(columns: dict[Layout, FileColumn], rows: dict[Layout, int]) -> pa.DataType:
    """The common type of the family that most rows have."""
    counted: dict[pa.DataType, int] = {}
    for layout, column in columns.items():
        counted[column.type] = counted.get(column.type, 0) + rows[layout]
    whole = unify(counted)
    if whole is not None:
        return whole

    def weigh(kind: pa.DataType) -> int:
        return sum(n for other, n in counted.items() if unify([kind, other]) is not None)

    known = [kind for kind in counted if not pa.types.is_null(kind)]
    chosen = max(known, key=weigh)  # the first of those with most rows
    for kind in counted:
        chosen = unify([chosen, kind]) or chosen
    return chosen


def _find_odd(
    name: str, rows: dict[Layout, int], fits: Fits, exact: bool
) -> dict[Layout, tuple[str, str | None]]:
    """The layouts that differ in a column: the type that was expected, and the one found."""
    columns = _find_all(name, rows)
    if not columns:
        return {}
    usable = {layout: column for layout, column in columns.items() if fits(name, column.type)}
    expected = _choose_type(usable or columns, rows)
    rounded = exact and any(column.far for column in columns.values())
    odd: dict[Layout, tuple[str, str | None]] = {}
    for layout in rows:
        column = columns.get(layout)
        if column is None:
            odd[layout] = (str(expected), None)
        elif (count := _count(name, layout)) > 1 and any(_count(name, one) == 1 for one in rows):
            odd[layout] = (str(expected), f"{count} columns of that name")
        elif unify([expected, column.type]) is None or (
            usable and layout not in usable and not pa.types.is_null(column.type)
        ):
            odd[layout] = (str(expected), f"{column.type}{_advise(expected, column.type)}")
        elif rounded and pa.types.is_floating(column.type):
            odd[layout] = ("an integer", f"{column.type}, {_BEYOND}")
    return odd


def _advise(expected: pa.DataType, found: pa.DataType) -> str:
    """What to do where only one of two types of times has a zone: whether the other is in UTC, or
    in the time of some place, nobody can see."""
    both = pa.types.is_timestamp(expected) and pa.types.is_timestamp(found)
    return _ZONE if both and _has_zone(expected) != _has_zone(found) else ""
