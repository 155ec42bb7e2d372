"""Plain Arrow types: one type for each of the several ways to store the same values."""

import pyarrow as pa

from cluster.lake.types.casting import CastColumn, cast_exactly
from cluster.lake.types.unify import canonical


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type with extension types replaced by their storage types, at any depth.

    A file declares its own extension types, and Ray registers one that unpickles its values.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    if not pa.types.is_nested(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    inner = [field.with_type(storage_type(field.type)) for field in fields]
    if inner == fields:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(inner)
    if pa.types.is_map(kind):
        entry = inner[0].type
        return pa.map_(entry.field(0), entry.field(1))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner[0], kind.list_size)
    return (pa.large_list if pa.types.is_large_list(kind) else pa.list_)(inner[0])


def to_storage_array(column: pa.Array) -> pa.Array:
    """The column with extension types replaced by their storage types."""
    if isinstance(column, pa.ExtensionArray):
        return to_storage_array(column.storage)
    wanted = storage_type(column.type)
    return column if wanted == column.type else column.cast(wanted)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column whatever its encoding: extension types become their storage types,
    dictionaries their values, large and view types the plain ones."""
    return canonical(storage_type(kind))


def is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType)


def to_type(column: pa.Array, kind: pa.DataType) -> CastColumn:
    """The column in type `kind`, one that `unify` has made of its own. Dictionaries of that type
    stay."""
    column = to_storage_array(column)
    if not pa.types.is_dictionary(column.type):
        return cast_exactly(column, kind)
    if canonical(column.type) != kind:
        return cast_exactly(column.dictionary_decode(), kind)
    values = column.dictionary.cast(kind)
    return CastColumn(
        pa.DictionaryArray.from_arrays(column.indices, values, ordered=column.type.ordered), None
    )


def decode_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with dictionaries as their values: files differ in which columns they encode."""
    names = batch.schema.names
    columns = [
        c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns
    ]
    return pa.record_batch(columns, names)
