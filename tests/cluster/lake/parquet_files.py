"""Small real Parquet files for the tests."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def numbered(rows: int, first: int = 0) -> pa.Table:
    """Numbered rows: `n` counts from `first`."""
    n = range(first, first + rows)
    columns = {
        "n": pa.array(n, pa.int64()),
        "name": [f"row {i}" for i in n],
        "x": [i / 7 for i in n],
    }
    return pa.table(columns)


def encoded(table: pa.Table, row_group_size: int | None = None, **options: Any) -> bytes:
    """The table as a Parquet file with page checksums."""
    sink = pa.BufferOutputStream()
    given = {"write_page_checksum": True, "row_group_size": row_group_size, **options}
    pq.write_table(table, sink, **given)
    data: bytes = sink.getvalue().to_pybytes()
    return data
