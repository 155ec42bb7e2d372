"""Where the column chunks of a Parquet file lie, and how large they are."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow.parquet as pq

from cluster.lake.input import limits

# A page header begins with its type and two sizes; only a page with a checksum has a fourth number.
# (Thrift's compact protocol: 0x15 is the next field, an integer of at most five bytes.)
_WITH_CHECKSUM = re.compile(rb"(?:\x15[\x80-\xff]{0,4}[\x00-\x7f]){4}", re.DOTALL)
HEADER_BYTES = 24  # of these fields


class Chunk(NamedTuple):
    start: int
    stop: int
    size: int  # uncompressed bytes
    pages: tuple[int, ...]  # where its first pages begin: that of its dictionary, and of its data


class ColumnChunks:
    """The chunks by row group and column. Each row group's metadata is decoded once."""

    def __init__(self, metadata: pq.FileMetaData, file_size: int) -> None:
        self._metadata, self._file_size = metadata, file_size
        self._groups: dict[int, dict[str, list[Chunk]]] = {}

    def find(self, groups: Sequence[int], names: Sequence[str]) -> list[Chunk]:
        """The chunks of these columns."""
        return [
            chunk
            for index in groups
            for name in names
            for chunk in self._group(index).get(name, ())
        ]

    def compressed_bytes(self, groups: Sequence[int], names: Sequence[str]) -> int:
        return sum(chunk.stop - chunk.start for chunk in self.find(groups, names))

    def batch_rows(self, groups: Sequence[int], names: Sequence[str], wanted: int) -> int:
        """Rows to decode at once: `wanted`, or fewer where a row of these columns is large."""
        fewest = wanted
        for index in groups:
            chunks = self._group(index)
            size = sum(chunk.size for name in names for chunk in chunks.get(name, ()))
            rows = self._metadata.row_group(index).num_rows
            fewest = min(fewest, limits.batch_rows(wanted, rows, size))
        return fewest

    def _group(self, index: int) -> dict[str, list[Chunk]]:
        if index not in self._groups:
            chunks = self._groups[index] = {}
            group = self._metadata.row_group(index)
            for place in range(group.num_columns):
                column = group.column(place)
                offsets = (column.dictionary_page_offset, column.data_page_offset)
                pages = tuple(offset for offset in offsets if offset)
                start = min(pages, default=0)
                stop = min(self._file_size, start + column.total_compressed_size)
                chunk = Chunk(start, stop, column.total_uncompressed_size, pages)
                for name in _possible_names(column.path_in_schema):
                    chunks.setdefault(name, []).append(chunk)
        return self._groups[index]


def has_checksum(header: bytes) -> bool:
    """Whether a page whose header begins with these bytes has a checksum."""
    return _WITH_CHECKSUM.match(header) is not None


def _possible_names(path: str) -> Iterator[str]:
    """The columns that `a.b` may belong to: `a`, or one whose name has a dot."""
    yield path
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
