"""One type for a column that several files store in different ways.

Types belong to families: numbers, texts, bytes, times, lists, maps, structs. Types of one family
have a type that holds the values of both; types of two families have none. Within a family the
result is a least upper bound, so neither order nor grouping matters. Structs that differ in fields
have the fields of all: a field that a file lacks is null in its rows.
"""

from collections.abc import Iterable
from functools import reduce

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")
_DIGITS = 76  # of the largest decimal
# Digits that every integer of 64 bits fits. Smaller integers count as these, so that grouping does
# not matter: int8 and uint8 make int16, whose digits are more than those of either.
_INT_DIGITS, _UINT64_DIGITS = 19, 20


def unify(types: Iterable[pa.DataType]) -> pa.DataType | None:
    """The type that holds the values of all types; None if there is none. Of no types it is null.

    Only two joins can change a value, and `cast_exactly` reports it: a whole or decimal number
    beside a float, beyond the digits of a float64; and a time of another precision, below a
    microsecond or beyond its range.

    >>> unify([pa.int32(), pa.int64(), pa.null()])
    DataType(int64)
    >>> unify([pa.int64(), pa.string()]) is None
    True
    """
    return reduce(_join_known, map(canonical, dict.fromkeys(types)), pa.null())


def canonical(kind: pa.DataType) -> pa.DataType:
    """One type for the several encodings of the same values: dictionaries, large and view types,
    dates in milliseconds.

    >>> canonical(pa.list_(pa.dictionary(pa.int8(), pa.large_string())))
    ListType(list<item: string>)
    """
    t = pa.types
    if t.is_dictionary(kind):
        return canonical(kind.value_type)
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    if t.is_large_binary(kind) or t.is_binary_view(kind):
        return pa.binary()
    if t.is_decimal(kind):
        return _make_decimal(kind.precision, kind.scale)
    if t.is_date64(kind):  # milliseconds that are whole days
        return pa.date32()
    if t.is_map(kind):
        return pa.map_(canonical(kind.key_type), canonical(kind.item_type))
    if t.is_fixed_size_list(kind):
        return pa.list_(canonical(kind.value_type), kind.list_size)
    if _is_list(kind):
        return pa.list_(canonical(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([(field.name, canonical(field.type)) for field in kind])
    return kind


def is_number(kind: pa.DataType) -> bool:
    t = pa.types
    whole = t.is_boolean(kind) or t.is_integer(kind)
    return bool(whole or t.is_floating(kind) or t.is_decimal(kind))


def _join_known(one: pa.DataType | None, other: pa.DataType | None) -> pa.DataType | None:
    return None if one is None or other is None else _join(one, other)


def _join(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    t = pa.types
    if one == other or t.is_null(other):
        return one
    if t.is_null(one):
        return other
    if is_number(one) and is_number(other):
        return _join_numbers(one, other)
    if t.is_timestamp(one) and t.is_timestamp(other):
        if (one.tz is None) != (other.tz is None):
            return None
        # Microseconds reach the year 9999, as nanoseconds do not.
        unit = one.unit if one.unit == other.unit else "us"
        return pa.timestamp(unit, one.tz if one.tz == other.tz else "UTC")
    if t.is_time(one) and t.is_time(other):
        unit = max(one.unit, other.unit, key=_UNITS.index)
        return pa.time64(unit) if unit in ("us", "ns") else pa.time32(unit)
    if t.is_duration(one) and t.is_duration(other):
        return pa.duration(max(one.unit, other.unit, key=_UNITS.index))
    if _is_bytes(one) and _is_bytes(other):
        return pa.binary()
    return _join_nested(one, other)


def _join_nested(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    t = pa.types
    if _is_list(one) and _is_list(other):
        value = _join(one.value_type, other.value_type)
        sizes = {getattr(kind, "list_size", -1) for kind in (one, other)}
        return None if value is None else pa.list_(value, sizes.pop() if len(sizes) == 1 else -1)
    if t.is_map(one) and t.is_map(other):
        key = _join(one.key_type, other.key_type)
        item = _join(one.item_type, other.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if t.is_struct(one) and t.is_struct(other):
        return _join_structs(one, other)
    return None


def _join_structs(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The fields of both, in the order of their names where the structs differ in fields."""
    names = one.names
    if one.names != other.names:
        names = sorted({*one.names, *other.names})
    if any(len({*kind.names}) < len(kind.names) for kind in (one, other)):
        return None  # two fields of one name
    joined = [_join(_find_type(one, name), _find_type(other, name)) for name in names]
    return None if None in joined else pa.struct(list(zip(names, joined, strict=True)))


def _find_type(struct: pa.DataType, name: str) -> pa.DataType:
    return struct.field(name).type if name in struct.names else pa.null()


def _join_numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The smallest integer, else the smallest decimal, else float64."""
    t = pa.types
    pair = (one, other)
    if any(map(t.is_floating, pair)):
        widths = [kind.bit_width for kind in pair if t.is_floating(kind)]
        return pa.float32() if max(widths) < 64 and len(widths) == 2 else pa.float64()
    if not any(map(t.is_decimal, pair)) and (whole := _join_integers(one, other)):
        return whole
    scale = max(kind.scale if t.is_decimal(kind) else 0 for kind in pair)
    precision = max(map(_count_whole_digits, pair)) + scale
    return _make_decimal(precision, scale) if precision <= _DIGITS else pa.float64()


def _join_integers(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    t = pa.types
    if t.is_boolean(one) or t.is_boolean(other):
        return other if t.is_boolean(one) else one
    signed = [kind.bit_width for kind in (one, other) if t.is_signed_integer(kind)]
    unsigned = [kind.bit_width for kind in (one, other) if t.is_unsigned_integer(kind)]
    if not signed:
        return max(one, other, key=lambda kind: kind.bit_width)
    width = max([*signed, *(2 * width for width in unsigned)])
    return {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(width)


def _count_whole_digits(kind: pa.DataType) -> int:
    if pa.types.is_decimal(kind):
        return int(kind.precision - kind.scale)
    return _UINT64_DIGITS if kind == pa.uint64() else _INT_DIGITS


def _make_decimal(precision: int, scale: int) -> pa.DataType:
    return (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    views = t.is_list_view(kind) or t.is_large_list_view(kind)
    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind) or views)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind))
