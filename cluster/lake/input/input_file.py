"""The files of a day: the readable ones, and the ones set aside with a reason."""

from dataclasses import dataclass

import pyarrow as pa


# With slots, to save memory: a driver holds a million files.
@dataclass(frozen=True, slots=True)
class RowGroup:
    rows: int
    bytes: int  # uncompressed


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column as a file declares it."""

    name: str
    type: pa.DataType  # plain (see `arrow_types`)
    uuid: bool = False  # 16 bytes that are a UUID
    channels: bytes | None = None  # names of a series' channels, as JSON
    far: bool = False  # integers beyond 2^53 by its statistics: a float64 would round them
    int96: bool = False  # times in the old format that has no mark for UTC


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file whose footer was read."""

    key: str  # relative to the snapshot's URI
    size: int  # bytes
    version: str  # see `store.Object`; empty where the key itself names the content
    rows: int
    row_groups: tuple[RowGroup, ...]
    columns: tuple[FileColumn, ...]
    # "region=eu/day=2026-11-20/": the values that a table's log has, whatever the key's folders are
    logged: str | None = None
    footer: str = ""  # see `hash_footer`; empty where nobody has read it

    @property
    def path(self) -> str:
        """The path whose folders name columns and the day."""
        return self.key if self.logged is None else self.logged


@dataclass(frozen=True)
class RejectedFile:
    """A file that cannot be used. Its rows are in no count."""

    key: str
    # empty_file, not_parquet, truncated, vanished, changed, oversized, unreadable, duplicate,
    # bad_name
    rule: str
    message: str
