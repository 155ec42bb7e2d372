"""Functions that write one small Parquet file, as other writers do or damaged."""

import base64
import datetime as dt
import io
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from tests.formats.values import ROWS, make_values


def numbers(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"amount": rng.exponential(2.0, ROWS), "load": rng.normal(size=ROWS)}


def encode(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def column(values: pa.Array, **options: Any) -> bytes:
    """A file with numbers that any detector can use, and the column `x` beside them."""
    return encode(pa.table({**numbers(), "x": values}), **options)


def typed(kind: pa.DataType, nulls: bool = False, **options: Any) -> bytes:
    return column(make_values(kind, nulls), **options)


def all_null(kind: pa.DataType) -> bytes:
    return column(pa.nulls(ROWS, kind))


def no_row_groups() -> bytes:
    sink = pa.BufferOutputStream()
    pq.ParquetWriter(sink, pa.table(numbers()).schema).close()
    data: bytes = sink.getvalue().to_pybytes()
    return data


def empty_row_groups() -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table(numbers())
    with pq.ParquetWriter(sink, table.schema) as writer:
        for part in (table[:0], table[:50], table[:0], table[50:], table[:0]):
            writer.write_table(part)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def no_columns(rows: int) -> bytes:
    return encode(pa.Table.from_struct_array(pa.array([{}] * rows, pa.struct([]))))


def named(*names: str) -> bytes:
    """Numbers in columns of these names, beside the usual ones."""
    rng = np.random.default_rng(1)
    columns = [*numbers().values(), *(rng.normal(size=ROWS) for _ in names)]
    return encode(pa.Table.from_arrays(list(map(pa.array, columns)), [*numbers(), *names]))


def huge_page() -> bytes:
    texts = ["a"] * (ROWS - 1) + ["b" * (20 * 1024**2)]
    return column(pa.array(texts), use_dictionary=False, compression="none")


def required() -> bytes:
    table = pa.table(numbers())
    fields = [pa.field(field.name, field.type, nullable=False) for field in table.schema]
    return encode(table.cast(pa.schema(fields)))


def int96(value: dt.datetime) -> bytes:
    times = pa.array([value] * ROWS, pa.timestamp("us"))
    return column(times, use_deprecated_int96_timestamps=True)


def by_duckdb(expression: str) -> bytes:
    """A file by another writer, with a column of this SQL expression of the row number `n`."""
    rows = f"SELECT random() AS amount, n % 13 AS load, {expression} AS x FROM range({ROWS}) t(n)"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        duckdb.execute(f"COPY ({rows}) TO '{path}' (FORMAT parquet)")
        return path.read_bytes()


def relabelled(converted: int, logical: int) -> bytes:
    """A text column whose footer calls it another type: numbers are those of parquet.thrift."""
    data = column(make_values(pa.string()), store_schema=False)
    utf8 = bytes([0x25, 0, 0x4C, 0x1C, 0, 0])  # converted_type UTF8, logicalType STRING
    assert data.count(utf8) == 1
    return data.replace(utf8, bytes([0x25, converted << 1, 0x4C, logical << 4 | 0xC, 0, 0]))


def invalid_utf8() -> bytes:
    raw = pa.array([b"caf\xe9"] + [b"tea", b"milk"] * (ROWS // 2), pa.binary())[:ROWS]
    return column(pa.StringArray.from_buffers(ROWS, *raw.buffers()[1:]))


def by_pandas(frame: pd.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.to_parquet(sink)
    return sink.getvalue()


def frame() -> pd.DataFrame:
    return pd.DataFrame(numbers())


def frame_of_levels() -> pd.DataFrame:
    levels = frame()
    levels.columns = pd.MultiIndex.from_tuples([("a", "amount"), ("a", "load")])
    return levels


def wide(columns: int) -> bytes:
    rng = np.random.default_rng(2)
    return encode(pa.table({f"c{i}": rng.normal(size=ROWS) for i in range(columns)}))


def broken_metadata() -> bytes:
    table = pa.table(numbers())
    return encode(table.replace_schema_metadata({b"pandas": b"{no json", b"\xff": b"\xfe"}))


def broken_arrow_schema(text: bytes) -> bytes:
    return encode(
        pa.table(numbers()).replace_schema_metadata({"ARROW:schema": text}), store_schema=False
    )


class _Keys(pe.KmsClient):  # type: ignore[misc]
    """Wraps keys with base64: a secret of nobody."""

    def wrap_key(self, key: bytes, master: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, master: str) -> bytes:
        return base64.b64decode(wrapped)


def encrypted(plaintext_footer: bool) -> bytes:
    """A file whose column `x` is encrypted; the footer too, unless it is plain and signed."""
    factory = pe.CryptoFactory(lambda _: _Keys())
    settings = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["x"]}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), settings)
    return column(make_values(pa.int32()), encryption_properties=properties)


def flipped(data: bytes, *places: int) -> bytes:
    raw = bytearray(data)
    for place in places:
        raw[place] ^= 0x5A
    return bytes(raw)


def plain(**options: Any) -> bytes:
    return column(make_values(pa.string()), **options)


def damaged_footer(step: int) -> bytes:
    data = plain()
    length = struct.unpack("<I", data[-8:-4])[0]
    return flipped(data, *range(len(data) - 8 - length + 20, len(data) - 8, step))


def encrypted_unsigned(crypto: bytes) -> bytes:
    """A file without a signature whose only column chunk has these crypto metadata."""
    data = encode(pa.table({"x": [1, 2, 3]}))
    length = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - length : -8]
    # The ends of sizes, of the column's metadata and of the chunk; then the group's bytes and rows.
    found = re.search(rb"\x00\x00\x00\x16[^\x00]{1,3}\x16\x06", footer)
    assert found is not None
    footer = footer[: found.start() + 2] + crypto + footer[found.start() + 2 :]
    return data[: -8 - length] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def claims(length: int) -> bytes:
    data = plain()
    return data[:-8] + struct.pack("<I", length) + b"PAR1"


def encoded_as(encoding: str, kind: pa.DataType) -> bytes:
    return typed(kind, True, use_dictionary=False, column_encoding={"x": encoding})
