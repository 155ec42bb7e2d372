"""The files of a day: the readable ones, and the ones set aside with a reason."""

from dataclasses import dataclass


# With slots, to save memory: a driver holds a million files.
@dataclass(frozen=True, slots=True)
class RowGroup:
    rows: int
    bytes: int  # uncompressed


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file whose footer was read."""

    key: str  # relative to the snapshot's URI
    size: int  # bytes
    version: str  # see `store.Object`
    rows: int
    row_groups: tuple[RowGroup, ...]
    columns: tuple[tuple[str, str], ...]  # name and type of each column


@dataclass(frozen=True)
class RejectedFile:
    """A file that cannot be used. Its rows are in no count."""

    key: str
    # empty_file, not_parquet, truncated, vanished, changed, oversized, unreadable, duplicate,
    # bad_name
    rule: str
    message: str
