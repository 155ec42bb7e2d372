"""A Parquet file with the columns that its folders `key=value` name, as readers of Hive see it."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.input.layout import list_columns


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
        schema = self._parquet.schema_arrow
        return pa.schema([*schema, *(pa.field(name, pa.string()) for name in self.folders)])

    @cached_property
    def folders(self) -> dict[str, str | None]:
        """The columns of the folders, with their one value."""
        own = set(self._parquet.schema_arrow.names)
        found = list_columns(self._path, None)
        return {name: value for name, value in found.items() if name not in own}

    def iter_batches(
        self,
        batch_size: int,
        *,
        row_groups: Sequence[int],
        columns: Sequence[str],
        use_threads: bool,
    ) -> Iterator[pa.RecordBatch]:
        stored = [name for name in columns if name not in self.folders]
        batches = self._parquet.iter_batches(
            batch_size, row_groups=list(row_groups), columns=stored, use_threads=use_threads
        )
        for batch in batches:
            yield add_columns(batch, {n: self.folders[n] for n in columns if n in self.folders})


def add_columns(batch: pa.RecordBatch, folders: dict[str, str | None]) -> pa.RecordBatch:
    """The batch with a column of text for each of the folders that it has no column of."""
    for name, value in folders.items():
        if name in batch.schema.names:
            continue
        column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
        batch = batch.append_column(name, column)
    return batch
