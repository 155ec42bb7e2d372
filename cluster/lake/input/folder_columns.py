"""A Parquet file with columns for its folders `key=value`, as readers of Hive see it, and for the
fields of its structs."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.input.layout import list_columns
from cluster.lake.input.struct_columns import (
    StructField,
    add_struct_fields,
    list_struct_fields,
    take_struct_fields,
)


class ParquetInFolders:
    """The parts of `pq.ParquetFile` that reading needs. A column of the file itself comes first.

    Values of folders are texts, whatever they look like: files of one day agree on that.
    """

    def __init__(self, parquet: pq.ParquetFile, path: str) -> None:
        self._parquet, self._path = parquet, path

    @property
    def metadata(self) -> pq.FileMetaData:
        return self._parquet.metadata

    @property
    def schema_arrow(self) -> pa.Schema:
        schema = add_struct_fields(self._parquet.schema_arrow)
        return pa.schema([*schema, *(pa.field(name, pa.string()) for name in self.folders)])

    @cached_property
    def folders(self) -> dict[str, str | None]:
        """The columns of the folders, with their one value."""
        own = set(add_struct_fields(self._parquet.schema_arrow).names)
        found = list_columns(self._path, None)
        return {name: value for name, value in found.items() if name not in own}

    @cached_property
    def struct_fields(self) -> dict[str, StructField]:
        """The fields of structs by their paths."""
        fields = list_struct_fields(self._parquet.schema_arrow)
        return {field.column.name: field for field in fields}

    def iter_batches(
        self,
        batch_size: int,
        *,
        row_groups: Sequence[int],
        columns: Sequence[str],
        use_threads: bool,
    ) -> Iterator[pa.RecordBatch]:
        stored = [name for name in columns if name not in self.folders]  # paths in structs too
        fields = [self.struct_fields[name] for name in columns if name in self.struct_fields]
        batches = self._parquet.iter_batches(
            batch_size, row_groups=list(row_groups), columns=stored, use_threads=use_threads
        )
        for batch in batches:
            batch = take_struct_fields(batch, fields)
            yield add_columns(batch, {n: self.folders[n] for n in columns if n in self.folders})


def add_columns(batch: pa.RecordBatch, folders: dict[str, str | None]) -> pa.RecordBatch:
    """The batch with a column of text for each of the folders that it has no column of."""
    for name, value in folders.items():
        if name in batch.schema.names:
            continue
        column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
        batch = batch.append_column(name, column)
    return batch
