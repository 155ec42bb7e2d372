"""Plain Arrow types: one type for each of the several ways to store the same values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.types.casting import CastColumn, cast_exactly
from cluster.lake.types.unify import canonical


def storage_type(kind: pa.DataType) -> pa.DataType:
    """The type with extension types replaced by their storage types, and list views by lists, at
    any depth.

    A file declares its own extension types, and Ray registers one that unpickles its values.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return storage_type(kind.storage_type)
    if not pa.types.is_nested(kind):
        return kind
    fields = [kind.field(i) for i in range(kind.num_fields)]
    inner = [field.with_type(storage_type(field.type)) for field in fields]
    if inner == fields and not _is_view(kind):
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
    """The column with extension types replaced by their storage types, and list views by lists."""
    if isinstance(column, pa.ExtensionArray):
        return to_storage_array(column.storage)
    wanted = storage_type(column.type)
    if wanted == column.type:
        return column
    if _is_view(column.type):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        values = to_storage_array(column.flatten())
        return pa.ListArray.from_arrays(offsets, values, mask=column.is_null())
    if _holds_views(column.type):
        return pa.array(column.to_pylist(), wanted)
    return column.cast(wanted)


def _is_view(kind: pa.DataType) -> bool:
    """Whether values are list views. Arrow's cast of these to lists leaves out the last offset."""
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _holds_views(kind: pa.DataType) -> bool:
    if not pa.types.is_nested(kind):
        return False
    return _is_view(kind) or any(_holds_views(kind.field(i).type) for i in range(kind.num_fields))


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
