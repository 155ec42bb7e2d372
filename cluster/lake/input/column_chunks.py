"""Where the column chunks of a Parquet file lie, and how large they are."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from cluster.lake.input import limits


class _Chunk(NamedTuple):
    start: int
    stop: int
    size: int  # uncompressed bytes


class ColumnChunks:
    """The chunks by row group and column. Each row group's metadata is decoded once."""

    def __init__(self, metadata: pq.FileMetaData, file_size: int) -> None:
        self._metadata, self._file_size = metadata, file_size
        self._groups: dict[int, dict[str, list[_Chunk]]] = {}

    def ranges(self, groups: Sequence[int], names: Sequence[str]) -> list[tuple[int, int]]:
        """The bytes [start, stop) of each chunk of these columns."""
        return [
            (chunk.start, chunk.stop)
            for index in groups
            for name in names
            for chunk in self._group(index).get(name, ())
        ]

    def compressed_bytes(self, groups: Sequence[int], names: Sequence[str]) -> int:
        return sum(stop - start for start, stop in self.ranges(groups, names))

    def batch_rows(self, groups: Sequence[int], names: Sequence[str], wanted: int) -> int:
        """Rows to decode at once: `wanted`, or fewer where a row of these columns is large."""
        fewest = wanted
        for index in groups:
            chunks = self._group(index)
            size = sum(chunk.size for name in names for chunk in chunks.get(name, ()))
            rows = self._metadata.row_group(index).num_rows
            fewest = min(fewest, limits.batch_rows(wanted, rows, size))
        return fewest

    def _group(self, index: int) -> dict[str, list[_Chunk]]:
        if index not in self._groups:
            chunks = self._groups[index] = {}
            group = self._metadata.row_group(index)
            for place in range(group.num_columns):
                column = group.column(place)
                start = column.data_page_offset
                if column.dictionary_page_offset:
                    start = min(start, column.dictionary_page_offset)
                stop = min(self._file_size, start + column.total_compressed_size)
                chunk = _Chunk(start, stop, column.total_uncompressed_size)
                for name in _possible_names(column.path_in_schema):
                    chunks.setdefault(name, []).append(chunk)
        return self._groups[index]


def _possible_names(path: str) -> Iterator[str]:
    """The columns that `a.b` may belong to: `a`, or one whose name has a dot."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
