"""Parquet footers written by hand (Thrift's compact protocol), with lies that no writer writes.

Field numbers are those of parquet.thrift: FileMetaData {1 version, 2 schema, 3 num_rows,
4 row_groups}, SchemaElement {1 type, 3 repetition_type, 4 name, 5 num_children},
RowGroup {1 columns, 2 total_byte_size, 3 num_rows}, ColumnChunk {2 file_offset}.
"""

import struct
from collections.abc import Sequence

_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_STOP = b"\0"


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def i32(step: int, number: int) -> bytes:
    """A field whose number is `step` above the number of the field before."""
    return bytes([step << 4 | _I32]) + varint(number << 1)


def text(step: int, value: bytes) -> bytes:
    return bytes([step << 4 | _BINARY]) + varint(len(value)) + value


def structs(step: int, items: list[bytes], claimed: int | None = None) -> bytes:
    """A list of structs, which may declare a wrong length."""
    length = varint(len(items) if claimed is None else claimed)
    return bytes([step << 4 | _LIST, 0xF0 | _STRUCT]) + length + b"".join(items)


def leaf(name: bytes) -> bytes:
    """An optional int32."""
    return i32(1, 1) + i32(2, 1) + text(1, name) + _STOP


def group(name: bytes, children: int) -> bytes:
    return i32(3, 1) + text(1, name) + i32(1, children) + _STOP


def i64(step: int, number: int) -> bytes:
    return bytes([step << 4 | _I64]) + varint(number << 1)


def row_group(chunks: int) -> bytes:
    """A row group of one row, with column chunks that say nothing."""
    return structs(1, [i64(2, 4) + _STOP] * chunks) + i64(1, 8) + i64(1, 1) + _STOP


def file(
    schema: list[bytes],
    schema_length: int | None = None,
    claimed_groups: int | None = None,
    groups: Sequence[bytes] = (),
) -> bytes:
    """A Parquet file that is only a footer."""
    held = structs(1, list(groups), claimed_groups)
    body = i32(1, 1) + structs(1, schema, schema_length) + i64(1, len(groups)) + held + _STOP
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


def wide(columns: int) -> bytes:
    return file([group(b"schema", columns), *(leaf(b"c%d" % i) for i in range(columns))])


def deep(levels: int) -> bytes:
    return file([group(b"schema", 1), *([group(b"n", 1)] * levels), leaf(b"x")])


def chunks(count: int) -> bytes:
    """A file of two columns with a row group of `count` column chunks."""
    schema = [group(b"schema", 2), leaf(b"a"), leaf(b"b")]
    return file(schema, groups=[row_group(count)])
