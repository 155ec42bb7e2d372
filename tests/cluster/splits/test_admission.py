"""A split that fits one batch is read at once, a larger one in batches: both give the same."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.days import ALL
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.splits.admission import Admission, AdmittedRows, Intake
from cluster.splits.counts import Counts
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
    return take_snapshot(Source(str(tmp_path)), ALL)


def admitted(
    lake: Snapshot, encoder: Encoder, split: Split, filter_text: str | None = None
) -> tuple[list[AdmittedRows], Admission, pa.Table]:
    """The admitted rows of a split, and the flag columns of every hundredth of them."""
    intake = Intake(lake.uri, encoder, ROLES, filter_text, afterwards=ROLES.flagged)
    with intake.open(split, Stages()) as admission:
        batches = list(admission.admit())
        numbers = np.concatenate([batch.numbers for batch in batches])[::100]
        return batches, admission, admission.read_columns(ROLES.flagged, numbers)


@pytest.mark.parametrize("filter_text", [None, "host != 'host 3'"])
def test_rows_are_the_same_however_a_file_is_cut(
    lake: Snapshot, encoder: Encoder, filter_text: str | None
) -> None:
    (whole,) = cut_splits(lake, 1_000_000, 1 << 30)
    pieces = cut_splits(lake, 10_000, 1 << 30)
    streamed, admission, _ = admitted(lake, encoder, whole, filter_text)
    assert not admission.whole
    parts = [admitted(lake, encoder, piece, filter_text) for piece in pieces]
    assert all(admission.whole for _, admission, _ in parts)
    batches = [batch for found, _, _ in parts for batch in found]
    ours, theirs = (join([one.extracted for one in some]) for some in (batches, streamed))
    assert np.array_equal(ours.values, theirs.values)
    assert np.array_equal(ours.codes, theirs.codes)
    for some in (batches, streamed):
        assert sum(len(batch.numbers) for batch in some) == admission.counts.scored
    assert np.array_equal(
        np.concatenate([batch.numbers for batch in batches]),
        np.concatenate([batch.numbers for batch in streamed]),
    )
    bad = [row for _, part, _ in parts for row in part.quarantined]
    assert bad == admission.quarantined
    assert {row.rule for row in bad} == {"null_key", "duplicate_id", "not_finite"}
    summed = sum((part.counts for _, part, _ in parts), Counts())
    assert replace(summed, splits=1) == admission.counts
    assert summed.unaccounted == 0


def test_a_split_that_was_read_at_once_needs_its_file_no_more(
    lake: Snapshot, encoder: Encoder
) -> None:
    piece = cut_splits(lake, 10_000, 1 << 30)[1]
    batches, admission, before = admitted(lake, encoder, piece)
    (Path(lake.uri) / "flows.parquet").unlink()
    numbers = np.concatenate([batch.numbers for batch in batches])[::100]
    assert admission.read_columns(ROLES.flagged, numbers).equals(before)
    assert before.column("id").to_pylist() == numbers.tolist()


def test_a_filter_that_keeps_no_row_admits_none(lake: Snapshot, encoder: Encoder) -> None:
    intake = Intake(lake.uri, encoder, ROLES, "host == 'nowhere'", afterwards=ROLES.flagged)
    (split, *_) = cut_splits(lake, 10_000, 1 << 30)
    with intake.open(split, Stages()) as admission:
        assert not list(admission.admit())
    assert admission.counts == Counts(splits=1, rows=10_000, filtered=10_000)
