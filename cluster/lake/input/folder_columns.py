"""A Parquet file with more columns: for its folders `key=value`, as readers of Hive see it, for the
fields of its structs, and for what its table got later."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.lake.input.layout import list_columns
from cluster.lake.input.struct_columns import list_struct_fields, take_struct_fields


class ParquetInFolders:
    """The parts of `pq.ParquetFile` that reading needs. A column of the file itself comes first.

    Values of folders are texts, whatever they look like: files of one day agree on that.
    """

    def __init__(self, parquet: pq.ParquetFile, path: str, types: pa.Schema | None = None) -> None:
        """`types` may have columns that the file lacks, of a table that got them later: they are
        null. Plain files that lack a column are refused before (see `file_types`)."""
        self._parquet, self._path = parquet, path
        own = self._parquet.schema_arrow
        fields = list_struct_fields(own)
        known = {*own.names, *(field.column.name for field in fields)}
        folders = list_columns(self._path, None)
        # The columns of the folders with their one value, and the fields of structs by their paths.
        self.folders = {name: value for name, value in folders.items() if name not in known}
        self.struct_fields = {field.column.name: field for field in fields}
        known |= self.folders.keys()
        self.absent = {one.name: one.type for one in types or () if one.name not in known}
        self.schema_arrow = pa.schema(
            [
                *own,
                *(field.column for field in fields),
                *(pa.field(name, pa.string()) for name in self.folders),
                *(pa.field(name, kind) for name, kind in self.absent.items()),
            ]
        )

    @property
    def metadata(self) -> pq.FileMetaData:
        return self._parquet.metadata

    @property
    def made(self) -> set[str]:
        """The columns that are no columns of the file."""
        return {*self.folders, *self.struct_fields, *self.absent}

    def iter_batches(
        self,
        batch_size: int,
        *,
        row_groups: Sequence[int],
        columns: Sequence[str],
        use_threads: bool,
    ) -> Iterator[pa.RecordBatch]:
        absent = {name: self.absent[name] for name in columns if name in self.absent}
        folders = {name: self.folders[name] for name in columns if name in self.folders}
        fields = [self.struct_fields[name] for name in columns if name in self.struct_fields]
        stored = [name for name in columns if name not in folders and name not in absent]
        batches = self._parquet.iter_batches(
            batch_size, row_groups=list(row_groups), columns=stored, use_threads=use_threads
        )
        for batch in batches:
            batch = add_columns(take_struct_fields(batch, fields), folders)
            for name, kind in absent.items():
                batch = batch.append_column(name, pa.nulls(batch.num_rows, kind))
            yield batch


def add_columns(batch: pa.RecordBatch, folders: dict[str, str | None]) -> pa.RecordBatch:
    """The batch with a column of text for each of the folders that it has no column of."""
    for name, value in folders.items():
        if name in batch.schema.names:
            continue
        column = pa.repeat(pa.scalar(value, pa.string()), batch.num_rows)
        batch = batch.append_column(name, column)
    return batch
