"""Put columns from one source beside the rows of another, a piece at a time."""

from collections.abc import Iterator, Sequence

import pyarrow as pa


class RowStream:
    """Record batches, read in pieces of any number of rows."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest = schema.empty_table()

    def next_rows(self, rows: int) -> pa.Table:
        """The next `rows` rows; none where the schema has no columns."""
        parts, count = [self._rest], self._rest.num_rows
        while count < rows and (batch := next(self._batches, None)) is not None:
            parts.append(pa.Table.from_batches([batch.cast(self._rest.schema)]))
            count += batch.num_rows
        whole = pa.concat_tables(parts)
        self._rest = whole.slice(rows)
        return whole.slice(0, rows)


def join_columns(parts: Sequence[pa.Table]) -> pa.Table:
    """One table with the columns of several tables of the same rows."""
    fields = [field for part in parts for field in part.schema]
    columns = [column for part in parts for column in part.columns]
    return pa.table(columns, schema=pa.schema(fields))
