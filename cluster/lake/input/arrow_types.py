"""Plain Arrow types: one type for each of the several ways to store the same values."""

from functools import cache

import pyarrow as pa


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
    """The type in which a column is read.

    Large and view strings become string, large and view binary binary, decimals float64, extension
    types their storage types. Dictionaries stay, with plain values. Other types stay.
    """
    kind = storage_type(kind)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, plain_type(kind.value_type), kind.ordered)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_decimal(kind):
        return pa.float64()
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema in which a file of this schema is read.

    Of the metadata, only the names of a series' channels are kept.
    """
    return pa.schema(
        [pa.field(f.name, plain_type(f.type), f.nullable, _channel_names(f)) for f in schema]
    )


def _channel_names(field: pa.Field) -> dict[bytes, bytes] | None:
    names = (field.metadata or {}).get(b"channels")
    return {b"channels": names} if names else None


def to_plain_array(column: pa.Array) -> pa.Array:
    """The column in its plain type. Decimals are rounded to the nearest float64."""
    column = to_storage_array(column)
    wanted = plain_type(column.type)
    if wanted == column.type:
        return column
    if pa.types.is_dictionary(wanted):
        values = to_plain_array(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values, ordered=wanted.ordered)
    return column.cast(wanted, safe=not pa.types.is_decimal(column.type))


def type_name(kind: pa.DataType) -> str:
    """The plain type as text, the same for all ways to store the same values."""
    return _type_name(storage_type(kind))  # first, because an extension type may fail to hash


@cache  # a day of 2,000 files of 22 columns has 44,000 of them, and a handful of types
def _type_name(kind: pa.DataType) -> str:
    inner = plain_type(kind)
    return str(inner.value_type if pa.types.is_dictionary(inner) else inner)


def decode_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with dictionaries as their values: files differ in which columns they encode."""
    names = batch.schema.names
    columns = [
        c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns
    ]
    return pa.record_batch(columns, names)
