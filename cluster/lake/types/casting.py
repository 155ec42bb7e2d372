"""Casts that change no value: what the new type cannot hold is reported, row by row."""

from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Bits of the integers that a float of this width holds, and the decimal digits.
_EXACT_BITS = {16: 11, 32: 24, 64: 53}
_EXACT_DIGITS = {16: 3, 32: 6, 64: 15}
_UNITS = ("s", "ms", "us", "ns")


class CastColumn(NamedTuple):
    """A column in its new type."""

    values: pa.Array  # rounded where a value does not fit, or null where it is far out of range
    changed: np.ndarray | None  # bool [rows]: the values that do not fit; None if all do


def cast_exactly(column: pa.Array, kind: pa.DataType) -> CastColumn:
    """The column in type `kind`. Raises what Arrow raises for types that have no cast.

    >>> cast_exactly(pa.array([1, 2**53 + 1]), pa.float64()).changed
    array([False,  True])
    """
    if column.type == kind:
        return CastColumn(column, None)
    if pa.types.is_dictionary(column.type):
        return cast_exactly(column.dictionary_decode(), kind)
    if pa.types.is_boolean(column.type) and not pa.types.is_string(kind):
        return cast_exactly(column.cast(pa.int8()), kind)
    if pa.types.is_floating(kind) and not pa.types.is_null(column.type):
        # Arrow's own cast of decimals is not to the nearest float; the one of texts is.
        exact = column.cast(pa.string()) if pa.types.is_decimal(column.type) else column
        values = exact.cast(kind, safe=False)
        return CastColumn(values, _none_if_false(_find_rounded(column, values)))
    if pa.types.is_timestamp(kind) and kind.tz and pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit, kind.tz))  # without a zone is UTC
    if _is_coarser(kind, column.type):
        values = column.cast(kind, safe=False)  # drops digits
        dropped = pc.not_equal(values.cast(column.type, safe=False), column)
        return CastColumn(values, _none_if_false(_to_mask(dropped)))
    return _cast_halves(column, kind)


def _is_coarser(kind: pa.DataType, than: pa.DataType) -> bool:
    stamps = pa.types.is_timestamp(kind) and pa.types.is_timestamp(than)
    return stamps and _UNITS.index(kind.unit) < _UNITS.index(than.unit)


def _cast_halves(column: pa.Array, kind: pa.DataType) -> CastColumn:
    """Cast as a whole; where that fails, each half: only values that do not fit are lost."""
    try:
        values = column.cast(kind)
    except pa.ArrowInvalid:
        if len(column) <= 1:
            return CastColumn(pa.nulls(len(column), kind), np.ones(len(column), bool))
        middle = len(column) // 2
        halves = [_cast_halves(part, kind) for part in (column[:middle], column[middle:])]
        sizes = (middle, len(column) - middle)
        changed = [
            np.zeros(size, bool) if half.changed is None else half.changed
            for half, size in zip(halves, sizes, strict=True)
        ]
        values = pa.concat_arrays([half.values for half in halves])
        return CastColumn(values, _none_if_false(np.concatenate(changed)))
    if pa.types.is_floating(column.type) and pa.types.is_decimal(kind):  # Arrow rounds
        before, after = column.cast(pa.float64()), values.cast(pa.float64())
        return CastColumn(values, _none_if_false(_to_mask(pc.not_equal(before, after))))
    return CastColumn(values, None)


def _find_rounded(column: pa.Array, values: pa.Array) -> np.ndarray:
    """bool [rows]: numbers of more digits than a float of the type of `values` has."""
    width = values.type.bit_width
    if pa.types.is_floating(column.type):
        before, after = column.cast(pa.float64()), values.cast(pa.float64())
        return _to_mask(pc.and_not(pc.not_equal(before, after), pc.is_nan(before)))
    if pa.types.is_decimal(column.type):
        digits = _EXACT_DIGITS[width]
        most = Decimal((0, (9,) * digits, -column.type.scale))
        limit = pa.scalar(most, pa.decimal256(76, column.type.scale))
        return _to_mask(pc.greater(pc.abs(column.cast(limit.type)), limit))
    most = 2 ** _EXACT_BITS[width]
    far = pc.greater(column, most)
    if pa.types.is_signed_integer(column.type):
        far = pc.or_(far, pc.less(column, -most))
    return _to_mask(far)


def _to_mask(found: pa.Array) -> np.ndarray:
    mask: np.ndarray = found.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _none_if_false(mask: np.ndarray) -> np.ndarray | None:
    return mask if mask.any() else None
