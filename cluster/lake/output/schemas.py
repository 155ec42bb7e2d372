"""The schemas of a watch's tables: flags, scores and quarantine.

A schema follows from the input's types and the roles of its columns, and never widens silently.
"""

import pyarrow as pa

from cluster.lake.types.casting import cast_exactly
from cluster.lake.types.unify import canonical, unify
from models.columns import Roles
from models.explaining.reasons import REASONS
from models.refusal import Refusal, SchemaMismatch

# Folders of an output.
FLAGS, SCORES, QUARANTINE, RUNS, REGISTRY = "flags", "scores", "quarantine", "_runs", "registry"

# The signal that contributed most, with the place marked; null for flags without a signal.
PICTURE = pa.struct([pa.field("feature", pa.string()), pa.field("png", pa.binary())])

# Metadata of a binary column whose values are UUIDs, which Delta has no type for.
UUID = {"type": "uuid"}

_FLAG = [
    pa.field("score", pa.float32()),
    pa.field("severity", pa.float32()),
    pa.field("threshold", pa.float32()),
    pa.field("reasons", REASONS),
    pa.field("anomaly_id", pa.string()),
    pa.field("bundle", pa.string()),
    pa.field("run_id", pa.string()),
]
_SCORE = [pa.field("score", pa.float32()), pa.field("run_id", pa.string())]

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),  # null: the whole file
        pa.field("column", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("message", pa.string()),
        pa.field("run_id", pa.string()),
    ]
)


def flag_schema(schema: pa.Schema, roles: Roles) -> pa.Schema:
    """Schema of the shards of flags, with pictures where a column is a signal.

    The partition column `day` is in the path of a shard, and not in its schema.
    """
    pictures = [pa.field("picture", PICTURE)] if roles.pictured else []
    return _join_carried(schema, roles, [*_FLAG, *pictures])


def score_schema(schema: pa.Schema, roles: Roles) -> pa.Schema:
    """Schema of the shards of the optional table with every row's score."""
    keys = Roles(roles.id, roles.time, roles.entity, sensitive=roles.sensitive)
    return _join_carried(schema, keys, _SCORE)


def _join_carried(schema: pa.Schema, roles: Roles, fixed: list[pa.Field]) -> pa.Schema:
    reserved = {f.name for f in fixed} | {"day"}
    for name in roles.flagged:
        if name in reserved:
            raise Refusal(
                f"column {name!r} of the input has the name of a column that Anomaray writes: "
                "rename it in the input, or drop its id, time, entity or keep role"
            )
    carried = [_carry(schema.field(name), name in roles.sensitive) for name in roles.flagged]
    return pa.schema([*carried, *fixed])


def _carry(field: pa.Field, sensitive: bool) -> pa.Field:
    """Sensitive values are carried as text: a mask or a digest."""
    if sensitive:
        return pa.field(field.name, pa.string())
    try:
        kind = lake_type(field.type)
    except SchemaMismatch as error:
        raise SchemaMismatch(f"column {field.name!r}: {error}") from None
    uuid = (field.metadata or {}).get(b"type") == b"uuid"
    return pa.field(field.name, kind, metadata=UUID if uuid else None)


def lake_type(kind: pa.DataType) -> pa.DataType:
    """The type in Delta, which has fewer types than Arrow, that holds every value of this one.

    Only a time below a microsecond has no place in it. Raises `SchemaMismatch` for a type without
    a place.
    """
    t = pa.types
    if t.is_null(kind) or t.is_duration(kind) or t.is_interval(kind):
        advice = "an integer" if not t.is_null(kind) else "a type with values"
        raise SchemaMismatch(
            f"expected a type that Delta can hold, found {kind}; write it as {advice} in the "
            "input, or take its id, time, entity or keep role away"
        )
    if t.is_map(kind):
        return pa.map_(lake_type(kind.key_type), lake_type(kind.item_type))
    if t.is_struct(kind):
        return pa.struct([(field.name, lake_type(field.type)) for field in kind])
    if t.is_nested(kind):
        return pa.list_(lake_type(kind.value_type))
    return _find_plain_lake_type(kind)


def _find_plain_lake_type(kind: pa.DataType) -> pa.DataType:
    t = pa.types
    if t.is_dictionary(kind):
        return lake_type(kind.value_type)
    if t.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if t.is_date(kind):
        return pa.date32()
    if t.is_large_string(kind) or t.is_string_view(kind) or t.is_time(kind):
        return pa.string()
    if t.is_large_binary(kind) or t.is_binary_view(kind) or t.is_fixed_size_binary(kind):
        return pa.binary()
    if t.is_unsigned_integer(kind):
        # Delta has no unsigned types: the next wider signed one holds every value.
        return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(
            kind.bit_width, pa.decimal128(20, 0)
        )
    if t.is_decimal(kind):  # 38 digits at most
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.string()
    return pa.float32() if t.is_float16(kind) else kind


def adopt_types(schema: pa.Schema, roles: Roles, table: pa.Schema | None) -> pa.Schema:
    """The input's schema, with the types of a table that has rows already for what it carries.

    A type of the same family is adopted, and rows whose value does not fit are set aside; another
    type stays, and the table refuses it.
    """
    if table is None:
        return schema
    for name in roles.flagged:
        place = schema.get_field_index(name)
        if place < 0 or name in roles.sensitive or name not in table.names:
            continue
        field, known = schema.field(place), canonical(table.field(name).type)
        joined = unify([field.type, known])
        if _is_carried_as(field.type, known) or joined is None or _has_more(joined, known):
            continue
        schema = schema.set(place, field.with_type(known))
    return schema


def _has_more(kind: pa.DataType, known: pa.DataType) -> bool:
    """Whether structs in a type have fields that those of the other lack: they would be lost."""
    return _list_fields(kind) != _list_fields(known)


def _list_fields(kind: pa.DataType, path: str = "") -> set[str]:
    if not pa.types.is_nested(kind):
        return {path}
    inner = [kind.field(place) for place in range(kind.num_fields)]
    named = pa.types.is_struct(kind)  # lists name their values as their writer likes
    return {
        found
        for place, field in enumerate(inner)
        for found in _list_fields(field.type, f"{path}.{field.name if named else place}")
    }


def _is_carried_as(kind: pa.DataType, known: pa.DataType) -> bool:
    try:
        return bool(canonical(lake_type(kind)) == known)
    except SchemaMismatch:
        return False


def conform_columns(
    batch: pa.RecordBatch | pa.Table, schema: pa.Schema, names: tuple[str, ...]
) -> list[pa.Array]:
    """The named columns of the batch, cast to the types of the table."""
    return [_cast(batch.column(name), schema.field(name).type) for name in names]


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return cast_exactly(whole, kind).values
