"""Values of Arrow as Python's, with those that Python has no value for."""

from typing import Any

import pyarrow as pa

from models.decoding.times import decode_times


def to_python(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column. A time outside of the years 1 to 9999, at any depth, is text.

    >>> to_python(pa.array([2**31 - 1, 0, None], pa.int32()).cast(pa.date32()))
    ['2147483647 days since 1970', datetime.date(1970, 1, 1), None]
    """
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (OverflowError, ValueError):
        return [_to_value(cell) for cell in column]


def has_far_times(column: pa.ChunkedArray) -> bool:
    """Whether Python has no value for some of the times of a column."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return decode_times(column.combine_chunks()).broken is not None
    if not pa.types.is_nested(column.type):
        return False
    try:
        column.to_pylist()
    except (OverflowError, ValueError):
        return True
    return False


def _to_value(cell: pa.Scalar) -> Any:
    if not cell.is_valid:
        return None
    if isinstance(cell, pa.StructScalar):
        return {name: _to_value(cell[name]) for name in cell.type.names}
    if isinstance(cell, pa.MapScalar):
        return [tuple(entry.values()) for entry in to_python(cell.values)]
    if isinstance(cell, pa.ListScalar | pa.LargeListScalar | pa.FixedSizeListScalar):
        return to_python(cell.values)
    try:
        return cell.as_py()
    except (OverflowError, ValueError):
        days = isinstance(cell, pa.Date32Scalar)
        return f"{cell.value} {'days' if days else cell.type.unit} since 1970"
