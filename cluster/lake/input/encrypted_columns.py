"""Finds encrypted columns in the bytes of a Parquet footer. pyarrow ends a process that reads one.

A footer is `FileMetaData` of parquet.thrift in Thrift's compact protocol. The metadata of a column
are encrypted where its `ColumnChunk.crypto_metadata` is `ENCRYPTION_WITH_COLUMN_KEY`.
"""

import re
from collections.abc import Iterator

_ROW_GROUPS, _COLUMNS, _CRYPTO_METADATA, _COLUMN_KEY = 4, 1, 8, 2
_STRUCT = 12
# The headers of the crypto metadata, of the column key in it, and of the key's first field. Reading
# a footer takes 0.1 ms for 10 columns, so only those with these bytes are read.
_HEADERS = re.compile(
    rb"(?:[\x1c\x2c\x3c\x4c\x5c\x6c\x7c\x8c]|\x0c\x10)(?:\x2c|\x0c\x04)(?:\x19|\x09\x02)"
)


def has_encrypted_column(footer: bytes) -> bool:
    """Whether the metadata of a column chunk are encrypted. A damaged footer has none."""
    if not _HEADERS.search(footer):
        return False
    try:
        return _Thrift(footer).find_column_key()
    except (IndexError, ValueError, RecursionError):
        return False  # pyarrow reads it to the same place, and says what is wrong


class _Thrift:
    """Thrift's compact protocol, as far as it takes to skip what is not asked for."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def find_column_key(self) -> bool:
        for _ in self.enter(_ROW_GROUPS):
            for _ in self.enter(_COLUMNS):
                for field, kind in self.fields():
                    if (field, kind) != (_CRYPTO_METADATA, _STRUCT):
                        self.skip(kind)
                        continue
                    for choice, inner in self.fields():
                        if (choice, inner) == (_COLUMN_KEY, _STRUCT):
                            return True
                        self.skip(inner)
        return False

    def enter(self, wanted: int) -> Iterator[None]:
        """Stand at each struct of a list, which is this field of the struct that is read."""
        for field, kind in self.fields():
            if field != wanted or kind != 9:
                self.skip(kind)
                continue
            size, element = self.list_header()
            for _ in range(size):
                if element == _STRUCT:
                    yield
                else:
                    self.skip(element)

    def fields(self) -> Iterator[tuple[int, int]]:
        """The number and type of each field of a struct. The caller reads or skips its value."""
        field = 0
        while header := self.byte():
            delta, kind = header >> 4, header & 15
            field = field + delta if delta else self.signed()
            yield field, kind

    def skip(self, kind: int) -> None:
        match kind:
            case 1 | 2:  # true, false
                pass
            case 3:
                self.at += 1
            case 4 | 5 | 6:
                self.varint()
            case 7:
                self.at += 8
            case 8:
                length = self.varint()
                self.at += length
            case 9 | 10:
                size, element = self.list_header()
                for _ in range(size):
                    self.skip(3 if element in (1, 2) else element)
            case 11:
                if size := self.varint():
                    kinds = self.byte()
                    for _ in range(size):
                        self.skip(kinds >> 4)
                        self.skip(kinds & 15)
            case 12:
                for _, inner in self.fields():
                    self.skip(inner)
            case _:
                raise ValueError(f"a type {kind}")

    def list_header(self) -> tuple[int, int]:
        header = self.byte()
        size, element = header >> 4, header & 15
        return (self.varint() if size == 15 else size), element

    def signed(self) -> int:
        number = self.varint()
        return (number >> 1) ^ -(number & 1)

    def varint(self) -> int:
        number = shift = 0
        while (byte := self.byte()) & 128:
            number |= (byte & 127) << shift
            shift += 7
        return number | byte << shift

    def byte(self) -> int:
        byte = self.data[self.at]
        self.at += 1
        return byte
