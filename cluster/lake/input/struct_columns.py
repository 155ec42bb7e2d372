"""The fields of structs as columns, named by their paths: `id.orig_h` of Zeek's struct `id`."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc


class StructField(NamedTuple):
    """A field of a struct, at any depth."""

    column: pa.Field  # named by the whole path
    path: tuple[str, ...]  # a name may have dots itself


def list_struct_fields(schema: pa.Schema) -> list[StructField]:
    """The fields below the structs of the schema, except those with the name of a real column.

    Two fields whose paths read alike are both listed: a name that is there twice cannot be asked
    for.

    >>> schema = pa.schema([("id", pa.struct([("orig_h", pa.string())]))])
    >>> [field.column.name for field in list_struct_fields(schema)]
    ['id.orig_h']
    """
    real = set(schema.names)
    found = (inner for field in schema for inner in _walk(field, ()))
    return [inner for inner in found if inner.column.name not in real]


def add_struct_fields(schema: pa.Schema) -> pa.Schema:
    """The schema with a column for each field of its structs."""
    return pa.schema([*schema, *(inner.column for inner in list_struct_fields(schema))])


def is_struct(kind: pa.DataType) -> bool:
    """Whether the type is a struct, or an extension type that is stored as one."""
    return bool(pa.types.is_struct(_storage(kind)))


def is_field_of(name: str, struct: str) -> bool:
    """Whether a path leads into the struct of that name."""
    return name.startswith(f"{struct}.")


def take_struct_fields(batch: pa.RecordBatch, fields: Sequence[StructField]) -> pa.RecordBatch:
    """The batch with columns for these fields. Below a null struct each field is null."""
    for column, path in fields:
        places = batch.schema.get_all_field_indices(path[0])
        array = next(batch.column(at) for at in places if is_struct(batch.schema.field(at).type))
        for name in path[1:]:
            array = _to_storage(array)
            array = pc.struct_field(array, array.type.get_field_index(name))
        batch = batch.append_column(column.name, array)
    return batch


def _walk(field: pa.Field, above: tuple[str, ...]) -> Iterator[StructField]:
    path = (*above, field.name)
    if above:
        yield StructField(field.with_name(".".join(path)), path)
    kind = _storage(field.type)
    if pa.types.is_struct(kind):
        for inner in kind:
            yield from _walk(inner, path)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _to_storage(column: pa.Array) -> pa.Array:
    return column.storage if isinstance(column, pa.ExtensionArray) else column
