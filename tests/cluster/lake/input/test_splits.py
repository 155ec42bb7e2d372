"""A snapshot is cut into splits: every row is in exactly one, and they are the same each time."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input.input_file import InputFile, RowGroup
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import Split, Task, cut_splits, group_tasks

groups = st.lists(
    st.builds(RowGroup, st.integers(0, 300), st.integers(0, 5_000)), min_size=0, max_size=12
)


@settings(deadline=None)
@given(st.lists(groups, max_size=4), st.integers(1, 120), st.integers(1, 3_000))
def test_every_row_is_in_exactly_one_split(
    files: list[list[RowGroup]], max_rows: int, max_bytes: int
) -> None:
    taken = made(files)
    splits = cut_splits(taken, max_rows, max_bytes)
    for file in taken.files:
        mine = sorted((s for s in splits if s.key == file.key), key=lambda s: s.first_row)
        assert sum(s.rows for s in mine) == file.rows
        for one, following in pairwise(mine):
            assert one.first_row + one.rows == following.first_row
        starts = [sum(g.rows for g in file.row_groups[:i]) for i in range(len(file.row_groups))]
        for split in mine:
            assert 0 < split.rows <= max_rows
            assert split.first_row == starts[split.row_groups[0]] + split.offset
            covered = [file.row_groups[i] for i in split.row_groups]
            whole = split.offset == 0 and split.rows == sum(g.rows for g in covered)
            assert whole or len(covered) == 1
            assert split.bytes <= max_bytes or split.rows == 1 or not whole
    assert len({s.id for s in splits}) == len(splits)


@settings(deadline=None)
@given(groups)
def test_splits_survive_json_and_are_cut_the_same_again(groups: Sequence[RowGroup]) -> None:
    taken = made([list(groups)])
    splits = cut_splits(taken, 50, 10_000)
    assert splits == cut_splits(taken, 50, 10_000)
    for split in splits:
        assert Split.from_document(json.loads(json.dumps(split.to_document()))) == split


def test_small_row_groups_go_together_and_large_ones_apart() -> None:
    taken = made([[RowGroup(rows, rows) for rows in (10, 10, 100, 5)]])
    cut = [(s.row_groups, s.offset, s.rows, s.first_row) for s in cut_splits(taken, 40, 1_000)]
    assert cut == [
        ((0, 1), 0, 20, 0),
        ((2,), 0, 33, 20),
        ((2,), 33, 33, 53),
        ((2,), 66, 34, 86),
        ((3,), 0, 5, 120),
    ]


def made(files: list[list[RowGroup]]) -> Snapshot:
    inputs = tuple(
        InputFile(f"{i}.parquet", 1, "v", sum(g.rows for g in file), tuple(file), ())
        for i, file in enumerate(files)
    )
    return Snapshot("somewhere", "all", inputs, (), pa.schema([]))


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 120), st.integers(1, 999)
)
def test_small_splits_are_grouped_in_order_and_none_is_lost(
    rows: list[int], most: int, size: int
) -> None:
    splits = [Split(str(i), f"{i}", "v", (0,), 0, 0, n, n * 10) for i, n in enumerate(rows)]
    tasks = group_tasks(splits, most, size)
    assert [split for task in tasks for split in task.splits] == splits
    assert len({task.id for task in tasks}) == len(tasks)
    for task in tasks:
        assert task.rows == sum(split.rows for split in task.splits)
        if len(task.splits) > 1:
            assert task.rows <= most
            assert task.rows * 10 <= size
        else:
            assert task.id == task.splits[0].id
        assert Task.from_document(json.loads(json.dumps(task.to_document()))) == task
