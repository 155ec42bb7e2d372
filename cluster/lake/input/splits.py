"""Cut a snapshot into splits, each with an id, and group small splits into tasks.

The same snapshot gives the same splits, so a run that is resumed knows by their ids which are done.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from cluster.lake.input.input_file import InputFile, RowGroup
from cluster.lake.input.snapshot import Snapshot
from models import canonical_json

# Large enough that a split's fixed cost (two journal records, one shard) is small beside reading
# it, and small enough that a killed one loses seconds of work. A row group as pyarrow writes it is
# one split: a range of rows decodes the rows before it too.
SPLIT_ROWS = 1024**2
SPLIT_BYTES = 256 * 1024**2
# Beyond this number splits grow with the day: the driver holds a line for each, and 4 GB for a
# million at the commit (docs/scale.md).
_MOST_SPLITS = 1_000_000
# Small splits are grouped, but into at least this many tasks, so that no actor runs idle.
_TASKS = 64


# With slots, to save memory: a driver holds a million splits.
@dataclass(frozen=True, slots=True)
class Split:
    """Some row groups of one file, or a range of rows of one row group."""

    id: str
    key: str
    version: str  # of its file
    row_groups: tuple[int, ...]
    first_row: int  # row number in the file where the split starts
    offset: int  # rows of the first row group that come before the split
    rows: int
    bytes: int  # uncompressed; of a part of a row group its share by rows
    logged: str | None = None  # of its file
    footer: str = ""  # of its file

    @property
    def path(self) -> str:
        """As of its file."""
        return self.key if self.logged is None else self.logged

    def to_document(self) -> dict[str, Any]:
        # By hand: `asdict` copies each value, and took ten times as long.
        return {
            "id": self.id,
            "key": self.key,
            "version": self.version,
            "row_groups": self.row_groups,
            "first_row": self.first_row,
            "offset": self.offset,
            "rows": self.rows,
            "bytes": self.bytes,
            **({} if self.logged is None else {"logged": self.logged}),
            "footer": self.footer,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Split":
        return cls(**{**document, "row_groups": tuple(document["row_groups"])})


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is handed at once: one split, or several small ones."""

    id: str
    splits: tuple[Split, ...]

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    def to_document(self) -> dict[str, Any]:
        return {"id": self.id, "splits": [split.to_document() for split in self.splits]}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Task":
        return cls(document["id"], tuple(map(Split.from_document, document["splits"])))


def plan_tasks(snapshot: Snapshot) -> tuple[Task, ...]:
    """The tasks of a day, as scoring hands them out."""
    rows, size = split_limits(snapshot.rows, snapshot.bytes)
    return group_tasks(cut_splits(snapshot, rows, size), snapshot.rows // _TASKS, size)


def split_limits(rows: int, size: int) -> tuple[int, int]:
    """The most rows and the most uncompressed bytes of a split, for a day of `rows` and `size`."""
    larger = max(
        1, -(-rows // (SPLIT_ROWS * _MOST_SPLITS)), -(-size // (SPLIT_BYTES * _MOST_SPLITS))
    )
    return SPLIT_ROWS * larger, SPLIT_BYTES * larger


def cut_splits(snapshot: Snapshot, max_rows: int, max_bytes: int) -> tuple[Split, ...]:
    """Cut a snapshot into splits of at most `max_rows` rows and `max_bytes` uncompressed bytes.

    Every row is in exactly one split. Small row groups of one file go together; a larger one is cut
    into even ranges of rows, down to single rows.
    """
    if max_rows < 1 or max_bytes < 1:
        raise ValueError(f"max_rows {max_rows} and max_bytes {max_bytes}: expected 1 at least")
    return tuple(s for file in snapshot.files for s in _cut_file(file, max_rows, max_bytes))


def group_tasks(splits: Sequence[Split], max_rows: int, max_bytes: int) -> tuple[Task, ...]:
    """Group neighbouring splits into tasks of at most `max_rows` rows and `max_bytes` bytes.

    A task costs a few writes, however small it is: 2,000 files of 4,000 rows, one by one, spent
    most of their time in them.
    """
    tasks: list[list[Split]] = []
    rows = size = 0
    for split in splits:
        if not tasks or rows + split.rows > max_rows or size + split.bytes > max_bytes:
            tasks.append([])
            rows = size = 0
        tasks[-1].append(split)
        rows, size = rows + split.rows, size + split.bytes
    return tuple(Task(_task_id(task), tuple(task)) for task in tasks)


def _task_id(splits: Sequence[Split]) -> str:
    if len(splits) == 1:
        return splits[0].id
    return hashlib.sha256("\n".join(split.id for split in splits).encode()).hexdigest()[:20]


def _cut_file(file: InputFile, max_rows: int, max_bytes: int) -> Iterator[Split]:
    start = Split("", file.key, file.version, (), 0, 0, 0, 0, file.logged, file.footer)
    split = start
    row = 0
    for index, group in enumerate(file.row_groups):
        if not group.rows:
            continue
        large = group.rows > max_rows or group.bytes > max_bytes
        full = split.rows + group.rows > max_rows or split.bytes + group.bytes > max_bytes
        if split.rows and (large or full):
            yield _with_id(split)
            split = replace(start, first_row=row)
        if large:
            yield from _cut_group(replace(start, first_row=row), index, group, max_rows, max_bytes)
            split = replace(start, first_row=row + group.rows)
        else:
            split = replace(
                split,
                row_groups=(*split.row_groups, index),
                rows=split.rows + group.rows,
                bytes=split.bytes + group.bytes,
            )
        row += group.rows
    if split.rows:
        yield _with_id(split)


def _cut_group(
    start: Split, index: int, group: RowGroup, max_rows: int, max_bytes: int
) -> Iterator[Split]:
    pieces = min(group.rows, max(-(-group.rows // max_rows), -(-group.bytes // max_bytes)))
    edges = [group.rows * piece // pieces for piece in range(pieces + 1)]
    for offset, stop in pairwise(edges):
        yield _with_id(
            replace(
                start,
                row_groups=(index,),
                first_row=start.first_row + offset,
                offset=offset,
                rows=stop - offset,
                bytes=group.bytes * (stop - offset) // group.rows,
            )
        )


def _with_id(split: Split) -> Split:
    """80 bits of a digest, so that no two splits of a run have the same id."""
    parts = [split.key, split.version, split.row_groups, split.offset, split.rows]
    data = canonical_json.encode(parts, ascii_only=True, spaced=True)
    return replace(split, id=hashlib.sha256(data).hexdigest()[:20])
