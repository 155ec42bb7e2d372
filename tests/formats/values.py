"""Arrow types of every kind, and values of each."""

import datetime as dt
import decimal
import json
import uuid
from typing import Any

import numpy as np
import pyarrow as pa

ROWS = 120


def make_values(
    kind: pa.DataType, nulls: bool = False, rows: int = ROWS, seed: int = 0
) -> pa.Array:
    """An array of the type with values that repeat; every seventh is null if there are `nulls`."""
    if pa.types.is_null(kind):
        return pa.nulls(rows)
    places = (np.arange(rows) * 7 + seed) % 23
    values = [
        None if nulls and row % 7 == 3 else _value(kind, int(n)) for row, n in enumerate(places)
    ]
    if isinstance(kind, pa.BaseExtensionType):
        storage = pa.array(values, kind.storage_type)
        return pa.ExtensionArray.from_storage(kind, storage)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    return pa.array(values, kind)


def _value(kind: pa.DataType, n: int) -> Any:
    t = pa.types
    if isinstance(kind, pa.UuidType):
        return uuid.UUID(int=n).bytes
    if isinstance(kind, pa.BaseExtensionType):
        return json.dumps({"n": n}) if "json" in str(kind) else _value(kind.storage_type, n)
    if t.is_dictionary(kind):
        return _value(kind.value_type, n)
    if t.is_null(kind):
        return None
    if t.is_boolean(kind):
        return n % 2 == 0
    if t.is_integer(kind):
        return n
    if t.is_float16(kind):
        return np.float16(n / 2)
    if t.is_floating(kind):
        return n / 3
    if t.is_decimal(kind):
        return decimal.Decimal(n).scaleb(-kind.scale)
    if t.is_date(kind):
        return dt.date(2026, 11, 1) + dt.timedelta(days=n)
    if t.is_time(kind):
        return dt.time(n, n, n)
    if t.is_timestamp(kind):
        return dt.datetime(2026, 11, 1, n, tzinfo=dt.UTC if kind.tz else None)
    if t.is_duration(kind):
        return dt.timedelta(seconds=n)
    if t.is_fixed_size_binary(kind):
        return bytes([n]) * kind.byte_width
    if t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return f"value {n}"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        return b"\xff\x00" + bytes([n])
    if t.is_map(kind):
        return [(_value(kind.key_type, i), _value(kind.item_type, n)) for i in range(n % 4)]
    if t.is_struct(kind):
        return {field.name: _value(field.type, n) for field in kind}
    size = kind.list_size if t.is_fixed_size_list(kind) else n % 4
    return [_value(kind.value_type, n + i) if n + i < 24 else None for i in range(size)]


STRUCT = pa.struct([("a", pa.int32()), ("b", pa.string()), ("c", pa.struct([("d", pa.float64())]))])
TYPES = [
    *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64(), pa.null()),
    *(pa.decimal32(7, 2), pa.decimal64(16, 3), pa.decimal128(38, 0), pa.decimal128(30, 12)),
    *(pa.decimal256(76, 10), pa.decimal128(5, 5), pa.decimal128(4, 0)),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")),
    *(
        pa.timestamp(unit, zone)
        for unit in ("s", "ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin", "+05:30")
    ),
    *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3), pa.binary(16), pa.uuid()),
    *(
        pa.json_(),
        pa.json_(pa.large_string()),
        pa.bool8(),
        pa.fixed_shape_tensor(pa.float32(), [2, 3]),
    ),
    *(pa.opaque(pa.binary(), "geometry", "a database"),),
    *(pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64())),
    *(pa.dictionary(pa.uint16(), pa.binary()), pa.dictionary(pa.int16(), pa.timestamp("us"))),
    *(
        pa.list_(pa.int32()),
        pa.list_(pa.string()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float32(), 4),
    ),
    *(
        pa.list_view(pa.int64()),
        pa.list_(pa.list_(pa.int16())),
        pa.list_(pa.bool_()),
        pa.list_(pa.binary()),
    ),
    *(pa.list_(pa.null()), pa.list_(pa.timestamp("us")), pa.list_(pa.decimal128(9, 2))),
    *(STRUCT, pa.list_(STRUCT), pa.struct([("l", pa.list_(pa.int32()))])),
    *(
        pa.map_(pa.string(), pa.int64()),
        pa.map_(pa.string(), STRUCT),
        pa.list_(pa.map_(pa.int32(), pa.string())),
    ),
]
