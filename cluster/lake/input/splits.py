"""Cut a snapshot into splits, each with the name of what is in it; put small ones together.

The same snapshot gives the same splits: a run that is begun again finds by their names what was
done. A driver holds a million of them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from cluster.lake.input.snapshot import InputFile, RowGroup, Snapshot
from models import canonical_json

# A split is large enough that its fixed cost (two journal records, one shard) is small beside
# reading it, and small enough that a killed one loses seconds of work. A row group as pyarrow
# writes it is one split: each range of it would decode the ranges before it, too.
SPLIT_ROWS = 1024**2
SPLIT_BYTES = 256 * 1024**2
# Beyond so many, splits grow with the day: the driver holds a line of each, and 4 GB of a million
# at the commit (docs/scale.md).
_MOST_SPLITS = 1_000_000
# Small splits are scored together, but in so many tasks at least that a pool of actors is busy to
# the end.
_TASKS = 64


@dataclass(frozen=True, slots=True)
class Split:
    """Some row groups of one file, or a range of rows of one row group."""

    id: str
    key: str
    version: str
    row_groups: tuple[int, ...]
    first_row: int  # row number in the file where the split starts
    offset: int  # rows of the first row group that come before the split
    rows: int
    bytes: int  # uncompressed; of a part of a row group its share by rows

    def to_document(self) -> dict[str, Any]:
        # By hand: `asdict` copies what it finds, and took ten times as long.
        return {
            "id": self.id,
            "key": self.key,
            "version": self.version,
            "row_groups": self.row_groups,
            "first_row": self.first_row,
            "offset": self.offset,
            "rows": self.rows,
            "bytes": self.bytes,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Split":
        return cls(**{**document, "row_groups": tuple(document["row_groups"])})


@dataclass(frozen=True, slots=True)
class Task:
    """What an actor takes in one go: a split, or several small ones."""

    id: str
    splits: tuple[Split, ...]

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    @property
    def files(self) -> str:
        """The files, for messages and cards: the first and how many more."""
        keys = list(dict.fromkeys(split.key for split in self.splits))
        return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")

    def to_document(self) -> dict[str, Any]:
        return {"id": self.id, "splits": [split.to_document() for split in self.splits]}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Task":
        return cls(document["id"], tuple(map(Split.from_document, document["splits"])))


def cut_splits(snapshot: Snapshot, max_rows: int, max_bytes: int) -> tuple[Split, ...]:
    """Cut into splits of at most so many rows and uncompressed bytes; every row is in exactly one.

    Small row groups of one file go together. A larger one is cut into even ranges of rows, down to
    single rows.
    """
    if max_rows < 1 or max_bytes < 1:
        raise ValueError(f"max_rows {max_rows} and max_bytes {max_bytes}: expected 1 at least")
    return tuple(s for file in snapshot.files for s in _cut_file(file, max_rows, max_bytes))


def group_tasks(splits: Sequence[Split], rows: int, size: int) -> tuple[Task, ...]:
    """Neighbouring splits together, as long as they have at most `rows` rows and `size` bytes.

    A task costs a few writes, however small it is: 2,000 files of 4,000 rows one by one took most
    of their time in them.
    """
    tasks: list[list[Split]] = []
    held_rows = held_bytes = 0
    for split in splits:
        if not tasks or held_rows + split.rows > rows or held_bytes + split.bytes > size:
            tasks.append([])
            held_rows = held_bytes = 0
        tasks[-1].append(split)
        held_rows, held_bytes = held_rows + split.rows, held_bytes + split.bytes
    return tuple(Task(_task_id(task), tuple(task)) for task in tasks)


def _task_id(splits: Sequence[Split]) -> str:
    if len(splits) == 1:
        return splits[0].id
    return hashlib.sha256("\n".join(split.id for split in splits).encode()).hexdigest()[:20]


def _cut_file(file: InputFile, max_rows: int, max_bytes: int) -> Iterator[Split]:
    start = Split("", file.key, file.version, (), 0, 0, 0, 0)
    split = start
    row = 0
    for index, group in enumerate(file.row_groups):
        if not group.rows:
            continue
        large = group.rows > max_rows or group.bytes > max_bytes
        full = split.rows + group.rows > max_rows or split.bytes + group.bytes > max_bytes
        if split.rows and (large or full):
            yield _named(split)
            split = replace(start, first_row=row)
        if large:
            yield from _ranges(replace(start, first_row=row), index, group, max_rows, max_bytes)
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
        yield _named(split)


def _ranges(
    start: Split, index: int, group: RowGroup, max_rows: int, max_bytes: int
) -> Iterator[Split]:
    pieces = min(group.rows, max(-(-group.rows // max_rows), -(-group.bytes // max_bytes)))
    edges = [group.rows * piece // pieces for piece in range(pieces + 1)]
    for offset, stop in pairwise(edges):
        yield _named(
            replace(
                start,
                row_groups=(index,),
                first_row=start.first_row + offset,
                offset=offset,
                rows=stop - offset,
                bytes=group.bytes * (stop - offset) // group.rows,
            )
        )


def _named(split: Split) -> Split:
    """With its id: 80 bits of a digest, so that no two splits of a run ever meet."""
    parts = [split.key, split.version, split.row_groups, split.offset, split.rows]
    data = canonical_json.encode(parts, ascii_only=True, spaced=True)
    return replace(split, id=hashlib.sha256(data).hexdigest()[:20])


def plan_tasks(taken: Snapshot) -> tuple[Task, ...]:
    """How a day is handed to the scorers."""
    rows, size = split_limits(taken.rows, taken.bytes)
    return group_tasks(cut_splits(taken, rows, size), taken.rows // _TASKS, size)


def split_limits(rows: int, size: int) -> tuple[int, int]:
    """Most rows and uncompressed bytes of a split, of a day of so many of them."""
    larger = max(
        1, -(-rows // (SPLIT_ROWS * _MOST_SPLITS)), -(-size // (SPLIT_BYTES * _MOST_SPLITS))
    )
    return SPLIT_ROWS * larger, SPLIT_BYTES * larger
