"""Types as the readers hand them out: one of several ways to store the same values."""

from functools import cache

import pyarrow as pa


def plain(kind: pa.DataType) -> pa.DataType:
    """Large and view strings as string, large and view binary as binary, decimals as float64.

    Dictionaries stay, with their values so treated; all other types are left alone.
    """
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain(kind.value_type), kind.ordered)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_decimal(kind):
        return pa.float64()
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of what `reading` gives for a file of this schema; of the metadata only the
    names of a series' channels."""
    return pa.schema(
        [pa.field(f.name, plain(f.type), f.nullable, _channel_names(f)) for f in schema]
    )


def _channel_names(field: pa.Field) -> dict[bytes, bytes] | None:
    names = (field.metadata or {}).get(b"channels")
    return {b"channels": names} if names else None


def plain_array(column: pa.Array) -> pa.Array:
    """The column in its plain type.

    A decimal of more than 15 digits is rounded to the nearest float64.
    """
    wanted = plain(column.type)
    if wanted == column.type:
        return column
    if pa.types.is_dictionary(wanted):
        values = plain_array(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values, ordered=wanted.ordered)
    return column.cast(wanted, safe=not pa.types.is_decimal(column.type))


@cache  # a day of 2,000 files of 22 columns has 44,000 of them, and a handful of types
def signature(kind: pa.DataType) -> str:
    """The type as text, the same for all ways to store the same values."""
    inner = plain(kind)
    return str(inner.value_type if pa.types.is_dictionary(inner) else inner)


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Dictionaries as their values: files differ in what they hold as a dictionary."""
    names = batch.schema.names
    columns = [
        c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns
    ]
    return pa.record_batch(columns, names)
