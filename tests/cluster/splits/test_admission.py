"""A split that fits one batch is read at once, a larger one in batches: both give the same."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cluster.lake.input import snapshot, splits
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import Split
from cluster.splits.admission import Admission, Books, Intake, Lot
from cluster.splits.stages import Stages
from models.columns import Roles
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import join

REPEATS = 20  # of the 2,000 rows of the fixture: more than one batch
ROLES = Roles(id=("id",), keep=("host",))


@pytest.fixture
def lake(tmp_path: Path, rows: pa.RecordBatch) -> Snapshot:
    """One file of 40,000 rows in 8 row groups; a null id, a repeated one, a number that is none."""
    table = pa.concat_tables([pa.table(rows)] * REPEATS)
    ids: list[int | None] = list(range(len(table)))
    ids[7], ids[11] = None, 10
    numbers = table.column("a").to_numpy().copy()
    numbers[20_000] = np.inf
    table = table.set_column(0, "a", pa.array(numbers))
    table = table.append_column("id", pa.array(ids, pa.int64()))
    table = table.append_column("host", pa.array([f"host {n % 100}" for n in range(len(table))]))
    pq.write_table(table, tmp_path / "flows.parquet", row_group_size=5000)
    return snapshot.take(str(tmp_path), None, snapshot.ALL)


def admitted(
    lake: Snapshot, encoder: Encoder, split: Split, filter_text: str | None = None
) -> tuple[list[Lot], Books, Admission, pa.Table]:
    """The lots of a split, its books, and the flag columns of every hundredth good row."""
    intake = Intake(lake.uri, encoder, ROLES, filter_text, afterwards=ROLES.flagged)
    books = Books()
    with intake.open(split, books, Stages()) as admission:
        lots = list(admission.lots())
        numbers = np.concatenate([lot.numbers for lot in lots])[::100]
        return lots, books, admission, admission.take(ROLES.flagged, numbers)


@pytest.mark.parametrize("filter_text", [None, "host != 'host 3'"])
def test_rows_are_the_same_however_a_file_is_cut(
    lake: Snapshot, encoder: Encoder, filter_text: str | None
) -> None:
    (whole,) = splits.cut(lake, 1_000_000, 1 << 30)
    pieces = splits.cut(lake, 10_000, 1 << 30)
    streamed, books, admission, _ = admitted(lake, encoder, whole, filter_text)
    assert not admission.whole
    parts = [admitted(lake, encoder, piece, filter_text) for piece in pieces]
    assert all(admission.whole for _, _, admission, _ in parts)
    lots = [lot for found, _, _, _ in parts for lot in found]
    ours, theirs = (join([lot.extracted for lot in some]) for some in (lots, streamed))
    assert torch.equal(ours.values, theirs.values)
    assert torch.equal(ours.codes, theirs.codes)
    for some in (lots, streamed):
        assert sum(len(lot.numbers) for lot in some) == books.good
    assert np.array_equal(
        np.concatenate([lot.numbers for lot in lots]),
        np.concatenate([lot.numbers for lot in streamed]),
    )
    assert [aside for _, part, _, _ in parts for aside in part.set_aside] == books.set_aside
    assert {aside.rule for aside in books.set_aside} == {"null_key", "duplicate_id", "not_finite"}
    assert sum(part.filtered for _, part, _, _ in parts) == books.filtered


def test_a_split_that_was_read_at_once_needs_its_file_no_more(
    lake: Snapshot, encoder: Encoder
) -> None:
    piece = splits.cut(lake, 10_000, 1 << 30)[1]
    lots, _, admission, before = admitted(lake, encoder, piece)
    (Path(lake.uri) / "flows.parquet").unlink()
    numbers = np.concatenate([lot.numbers for lot in lots])[::100]
    assert admission.take(ROLES.flagged, numbers).equals(before)
    assert before.column("id").to_pylist() == numbers.tolist()


def test_a_filter_that_keeps_no_row_leaves_no_lots(lake: Snapshot, encoder: Encoder) -> None:
    intake = Intake(lake.uri, encoder, ROLES, "host == 'nowhere'", afterwards=ROLES.flagged)
    books = Books()
    (split, *_) = splits.cut(lake, 10_000, 1 << 30)
    assert not list(intake.lots(split, books))
    assert (books.rows, books.filtered, books.good) == (10_000, 10_000, 0)
