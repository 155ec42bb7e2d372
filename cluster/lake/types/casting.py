"""Casts that change no value: what the new type cannot hold is reported, row by row."""

from collections.abc import Iterable
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

    A field that a struct lacks is null. A value of a field that `kind` lacks is a change.

    >>> cast_exactly(pa.array([1, 2**53 + 1]), pa.float64()).changed
    array([False,  True])
    """
    if column.type == kind:
        return CastColumn(column, None)
    if pa.types.is_dictionary(column.type):
        return cast_exactly(column.dictionary_decode(), kind)
    if pa.types.is_nested(kind) and not pa.types.is_null(column.type):
        return _cast_nested(column, kind)
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


def _cast_nested(column: pa.Array, kind: pa.DataType) -> CastColumn:
    if pa.types.is_struct(kind):
        return _cast_struct(column, kind)
    return _cast_map(column, kind) if pa.types.is_map(kind) else _cast_list(column, kind)


def _cast_struct(column: pa.Array, kind: pa.DataType) -> CastColumn:
    names = column.type.names
    if len({*names}) < len(names):  # the same type in another encoding: see `unify`
        return _cast_halves(column, kind)
    there = dict(zip(names, column.flatten(), strict=True))
    parts = [
        cast_exactly(there[field.name], field.type)
        if field.name in there
        else CastColumn(pa.nulls(len(column), field.type), None)
        for field in kind
    ]
    lost = [_to_mask(part.is_valid()) for name, part in there.items() if name not in kind.names]
    arrays = [part.values for part in parts]
    values = pa.StructArray.from_arrays(arrays, fields=list(kind), mask=column.is_null())
    return CastColumn(values, _join_masks([*(part.changed for part in parts), *lost]))


# Arrow's own casts of nested types break structs with a column without a type, so these are built.


def _cast_list(column: pa.Array, kind: pa.DataType) -> CastColumn:
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.where(_to_mask(column.is_null()), 0, lengths)
    items, changed = cast_exactly(column.flatten(), kind.value_type)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    none = column.is_null()
    if pa.types.is_fixed_size_list(kind):
        places = offsets[:-1, None] + np.arange(kind.list_size)
        gaps = np.repeat(_to_mask(none), kind.list_size)
        filled = items.take(pa.array(places.ravel(), mask=gaps))
        values = pa.FixedSizeListArray.from_arrays(filled, type=kind, mask=none)
    else:
        values = pa.ListArray.from_arrays(pa.array(offsets), items, kind, mask=none)
    return CastColumn(values, _gather(changed, lengths))


def _cast_map(column: pa.Array, kind: pa.DataType) -> CastColumn:
    starts = column.offsets.to_numpy()
    lengths = np.where(_to_mask(column.is_null()), 0, np.diff(starts))
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    places = pa.array(np.arange(offsets[-1]) + np.repeat(starts[:-1] - offsets[:-1], lengths))
    keys = cast_exactly(column.keys.take(places), kind.key_type)
    items = cast_exactly(column.items.take(places), kind.item_type)
    values = pa.MapArray.from_arrays(
        pa.array(offsets), keys.values, items.values, kind, mask=column.is_null()
    )
    return CastColumn(values, _gather(_join_masks([keys.changed, items.changed]), lengths))


def _gather(changed: np.ndarray | None, lengths: np.ndarray) -> np.ndarray | None:
    """bool [rows]: the rows of lists with these lengths that hold a changed item."""
    if changed is None:
        return None
    rows = np.zeros(len(lengths), bool)
    rows[np.repeat(np.arange(len(lengths)), lengths)[changed]] = True
    return rows


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


def _join_masks(masks: Iterable[np.ndarray | None]) -> np.ndarray | None:
    known = [mask for mask in masks if mask is not None]
    return _none_if_false(np.logical_or.reduce(known)) if known else None


def _to_mask(found: pa.Array) -> np.ndarray:
    mask: np.ndarray = found.fill_null(False).to_numpy(zero_copy_only=False)
    return mask


def _none_if_false(mask: np.ndarray) -> np.ndarray | None:
    return mask if mask.any() else None
