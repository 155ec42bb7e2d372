"""The schemas of a watch's tables: flags, scores and quarantine.

A schema follows from the input's types and the roles of its columns, and never widens silently.
"""

import pyarrow as pa

from models.columns import Roles
from models.explaining.reasons import REASONS
from models.refusal import Refusal

# Folders of an output.
FLAGS, SCORES, QUARANTINE, RUNS, REGISTRY = "flags", "scores", "quarantine", "_runs", "registry"

# The signal that contributed most, with the place marked; null for flags without a signal.
PICTURE = pa.struct([pa.field("feature", pa.string()), pa.field("png", pa.binary())])

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
    carried = [pa.field(name, _carried_type(schema, roles, name)) for name in roles.flagged]
    return pa.schema([*carried, *fixed])


def _carried_type(schema: pa.Schema, roles: Roles, name: str) -> pa.DataType:
    """Sensitive values are carried as text: a mask or a digest."""
    return pa.string() if name in roles.sensitive else lake_type(schema.field(name).type)


def lake_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column in Delta, which has fewer types than Arrow."""
    if pa.types.is_dictionary(kind):
        return lake_type(kind.value_type)
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_unsigned_integer(kind):
        # Delta has no unsigned types: the next wider signed one holds every value.
        return {8: pa.int16(), 16: pa.int32(), 32: pa.int64()}.get(
            kind.bit_width, pa.decimal128(20, 0)
        )
    if pa.types.is_float16(kind):
        return pa.float32()
    return kind


def conform_columns(
    batch: pa.RecordBatch | pa.Table, schema: pa.Schema, names: tuple[str, ...]
) -> list[pa.Array]:
    """The named columns of the batch, cast to the types of the table."""
    return [_cast(batch.column(name), schema.field(name).type) for name in names]


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))
    # safe=False only drops nanoseconds: Delta keeps microseconds.
    return column.cast(kind, safe=not pa.types.is_timestamp(kind))
