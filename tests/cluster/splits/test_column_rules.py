"""Rows of columns that are no features have rules too."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.days import ALL
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.splits.admission import Admission, Intake
from cluster.splits.column_rules import find_broken
from cluster.splits.stages import Stages
from models.columns import Roles
from models.encoding.encoder import Encoder

ROLES = Roles(id=("id",), time="ts", entity=("who",), label="label", kind="kind", keep=("note",))
ROLES = replace(ROLES, time_unit="s")


def raw_text(values: Sequence[bytes]) -> pa.Array:
    """Bytes that are declared as text, as some writers leave them."""
    return pa.StringArray.from_buffers(len(values), *pa.array(values).buffers()[1:])


LATIN1 = raw_text([b"a", b"caf\xe9", b"b"])
NESTED = pa.ListArray.from_arrays([0, 1, 2, 3], LATIN1)
CELLS = [
    ("id", LATIN1, "invalid_utf8"),
    ("who", LATIN1, "invalid_utf8"),
    ("kind", LATIN1, "invalid_utf8"),
    ("note", LATIN1, "invalid_utf8"),
    ("note", NESTED, "invalid_utf8"),
    ("note", pa.StructArray.from_arrays([LATIN1], ["agent"]), "invalid_utf8"),
    ("ts", pa.array(["2026-01-31", "noon", "2026-01-31T01:00Z"]), "unparsable"),
    ("ts", pa.array([0.0, float("nan"), 1.5]), "out_of_range"),
    ("label", pa.array([0, 300, 1], pa.int64()), "unknown_label"),
    ("label", pa.array([0.0, float("nan"), 1.0]), "unknown_label"),
    ("note", pa.array([0, 1, 1_000], pa.timestamp("ns")), "inexact"),
]


@pytest.mark.parametrize(("name", "column", "rule"), CELLS)
def test_a_cell_that_cannot_be_used_breaks_a_rule(name: str, column: pa.Array, rule: str) -> None:
    found = [(mask.tolist(), broken) for mask, broken in find_broken(name, column, ROLES)]
    assert found == [([False, True, False], rule)]


@pytest.fixture
def lake(tmp_path: Path, rows: pa.RecordBatch) -> Snapshot:
    """Two files with a broken cell in a row of each column, and ids in two types."""
    table = pa.table(rows)
    size = len(table)

    def texts(bad: int) -> pa.Array:
        return raw_text([b"caf\xe9" if row == bad else b"x%d" % row for row in range(size)])

    label: list[Any] = [row % 2 for row in range(size)]
    label[4] = 300
    stamp = [f"2026-01-31T{row % 24:02}:00Z" for row in range(size)]
    stamp[5] = "noon"
    columns = {
        "id": pa.array(range(size), pa.int64()),
        "ts": pa.array(stamp),
        "who": texts(2),
        "label": pa.array(label, pa.int64()),
        "kind": texts(6),
        "note": texts(3),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    pq.write_table(table, tmp_path / "a.parquet")
    place = table.schema.get_field_index("id")
    ids = pa.array([float(size + row) for row in range(size)])
    pq.write_table(table.set_column(place, "id", ids), tmp_path / "b.parquet")
    return take_snapshot(Source(str(tmp_path)), ALL)


@pytest.mark.parametrize("at_once", [True, False])
def test_rows_with_a_broken_cell_are_quarantined_and_the_books_balance(
    lake: Snapshot, encoder: Encoder, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Intake, "reads_at_once", lambda self, split: at_once)
    carried = ("label", "kind")
    intake = Intake(
        lake.uri, encoder, ROLES, None, carried, ("ts",), ROLES.flagged, types=lake.schema
    )
    for split in cut_splits(lake, 1_000_000, 1 << 30):
        with intake.open(split, Stages()) as admission:
            numbers = np.concatenate([batch.numbers for batch in admission.admit()])
            late = admission.set_aside(admission.read_columns(ROLES.flagged, numbers), numbers)
        assert find_rules(admission) == {
            2: ("who", "invalid_utf8"),
            3: ("note", "invalid_utf8"),
            4: ("label", "unknown_label"),
            5: ("ts", "unparsable"),
            6: ("kind", "invalid_utf8"),
        }
        assert late.tolist() == ([] if at_once else [2, 3])
        assert admission.counts.unaccounted == 0
        assert admission.counts.quarantined == 5


def find_rules(admission: Admission) -> dict[int | None, tuple[str, str]]:
    return {row.row: (row.column, row.rule) for row in admission.quarantined}


def test_a_label_with_normal_values_has_rules_of_its_own() -> None:
    roles = Roles(label="label", normal=("BENIGN",))
    found = find_broken("label", pa.array(["BENIGN", "", None, "DDoS"]), roles)
    assert [(mask.tolist(), rule) for mask, rule in found] == [
        ([False, True, False, False], "unknown_label")
    ]
