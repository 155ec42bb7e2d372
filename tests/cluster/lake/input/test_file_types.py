"""Files of one input whose columns have different types."""

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cluster.lake.days import ALL
from cluster.lake.input.file_types import find_drift
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.cluster.lake.parquet_files import encoded

TEXTS = pa.array(["a", "b", None])
WHOLE = pa.array([1, 2, None], pa.int64())
STAMPS = pa.array([datetime(2026, 1, 31), datetime(9999, 12, 31), None], pa.timestamp("us"))


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def take(store: Store, *columns: pa.Array | None) -> Snapshot:
    for name, column in zip("abcdef", columns, strict=False):
        rows = 3 if column is None else len(column)
        table = pa.table({"row": pa.array([name] * rows)})  # no two files have the same bytes
        table = table if column is None else table.append_column("x", column)
        store.put(f"{name}.parquet", encoded(table))
    return take_snapshot(Source(store.uri), ALL)


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (WHOLE, WHOLE.cast(pa.int32()), pa.int64()),
        (WHOLE, WHOLE.cast(pa.float64()), pa.float64()),
        (WHOLE, WHOLE.cast(pa.decimal128(38, 0)), pa.decimal128(38, 0)),
        (TEXTS, TEXTS.dictionary_encode(), pa.string()),
        (TEXTS, TEXTS.cast(pa.large_string()), pa.string()),
        (TEXTS, TEXTS.cast(pa.string_view()), pa.string()),
        (TEXTS, pa.nulls(3), pa.string()),
        (STAMPS, STAMPS.cast(pa.timestamp("ms")), pa.timestamp("us")),
        (
            pa.array([[1], [2, 3], None], pa.list_(pa.int32())),
            pa.array([[1], [2, 3], None], pa.large_list(pa.int64())),
            pa.list_(pa.int64()),
        ),
        (TEXTS, pa.array([], pa.null()), pa.string()),  # an empty pandas frame
        (WHOLE, pa.array([], pa.string()), pa.int64()),
    ],
)
def test_files_that_lose_nothing_are_read_in_one_type(
    local: Store, one: pa.Array, other: pa.Array, common: pa.DataType
) -> None:
    for columns in ((one, other), (other, one)):
        taken = take(local, *columns)
        assert taken.schema.field("x").type == common
        assert find_drift(taken.files, ["row", "x"], exact=["x"]) == ()
        store, found = open_store(taken.uri), []
        for split in cut_splits(taken, 100, 1 << 20):
            for batch, _ in read_rows(store, split, ("x",), 10, types=taken.schema):
                found += batch.column("x").to_pylist()
        assert found == [value for column in columns for value in column.to_pylist()]


SMALL = pa.struct([("q", pa.string()), ("a", pa.int32())])
WIDE = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])


@pytest.mark.parametrize(
    ("wrap", "put"),
    [
        (lambda kind: kind, lambda value: value),
        (pa.list_, lambda value: [value, None]),
        (lambda kind: pa.map_(pa.string(), kind), lambda value: [("k", value)]),
        (lambda kind: pa.struct([("s", kind)]), lambda value: {"s": value}),
    ],
)
def test_a_field_that_a_file_lacks_is_null_in_its_rows(local: Store, wrap: Any, put: Any) -> None:
    small = pa.array([put({"q": "x", "a": 1}), None], wrap(SMALL))
    wide = pa.array([put({"a": 2**60, "b": ["y"]}), put(None)], wrap(WIDE))
    found = []
    for columns in ((small, wide, pa.nulls(2)), (pa.nulls(2), wide, small)):
        taken = take(local, *columns)
        assert find_drift(taken.files, ["row", "x"], exact=["x"]) == ()
        whole = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string())), ("q", pa.string())])
        assert taken.schema.field("x").type == wrap(whole)
        store = open_store(taken.uri)
        for split in cut_splits(taken, 100, 1 << 20):
            for batch, _ in read_rows(store, split, ("x",), 10, types=taken.schema):
                found += batch.column("x").to_pylist()
    first = [put({"a": 1, "b": None, "q": "x"}), None]
    second = [put({"a": 2**60, "b": ["y"], "q": None}), put(None)]
    assert found == [*first, *second, None, None, None, None, *second, *first]


def test_structs_whose_fields_have_no_common_type_are_refused_by_name(local: Store) -> None:
    other = pa.array([{"a": "text"}] * 3)
    (drift,) = find_drift(take(local, pa.array([{"a": 1}] * 4), other).files, ["x"])
    assert str(drift) == (
        "b.parquet: column 'x': expected struct<a: int64>, found struct<a: string>"
    )


@pytest.mark.parametrize(
    ("columns", "odd"),
    [
        ((WHOLE, TEXTS, WHOLE), "b.parquet: column 'x': expected int64, found string"),
        ((TEXTS, WHOLE, WHOLE), "a.parquet: column 'x': expected int64, found string"),
        ((WHOLE, None, WHOLE), "b.parquet: column 'x': expected int64, the file has no such"),
        ((None, WHOLE, WHOLE), "a.parquet: column 'x': expected int64, the file has no such"),
    ],
)
def test_the_file_that_differs_from_most_rows_is_named(
    local: Store, columns: Any, odd: str
) -> None:
    (drift,) = find_drift(take(local, *columns).files, ["row", "x"])
    assert str(drift).startswith(odd)


def test_the_file_that_its_role_cannot_use_is_named_even_if_most_are_like_it(local: Store) -> None:
    taken = take(local, TEXTS, TEXTS, WHOLE)
    drifts = find_drift(taken.files, ["x"], lambda name, kind: pa.types.is_integer(kind))
    assert [drift.key for drift in drifts] == ["a.parquet", "b.parquet"]


def test_integers_that_a_float_would_round_are_refused_where_values_must_stay(local: Store) -> None:
    far = pa.array([2**53 + 1, 2, None], pa.int64())
    taken = take(local, far, WHOLE.cast(pa.float64()))
    (drift,) = find_drift(taken.files, ["x"], exact=["x"])
    assert (drift.key, drift.found) == (
        "b.parquet",
        "double, which cannot hold the integers beyond 2^53 of other files",
    )
    assert find_drift(taken.files, ["x"]) == (), "a feature may be rounded"


def test_identity_is_read_as_it_was_written(local: Store) -> None:
    columns = {
        "decimal": pa.array([Decimal("12345678901234567890123456789012345678")]),
        "wide": pa.array([Decimal(10) ** 60], pa.decimal256(76, 0)),
        "uuid": pa.array([bytes(range(16))], pa.uuid()),
        "fixed": pa.array([b"\x00\xff"], pa.binary(2)),
        "unsigned": pa.array([2**64 - 1], pa.uint64()),
        "view": pa.array(["a"], pa.string_view()),
        "nested": pa.array([{"a": [Decimal("1.10")]}]),
        "open_end": pa.array([datetime(9999, 12, 31)], pa.timestamp("us")),
    }
    local.put("a.parquet", encoded(pa.table(columns), use_deprecated_int96_timestamps=True))
    taken = take_snapshot(Source(local.uri), ALL)
    (split,) = cut_splits(taken, 100, 1 << 20)
    ((batch, _),) = read_rows(open_store(taken.uri), split, list(columns), 10, types=taken.schema)
    wanted = {name: column.to_pylist() for name, column in columns.items()}
    wanted["uuid"] = [bytes(range(16))]
    assert {name: batch.column(name).to_pylist() for name in columns} == wanted
    assert taken.schema.field("uuid").metadata == {b"type": b"uuid"}


def put_times(store: Store, **columns: tuple[pa.Array, bool]) -> Snapshot:
    """A file for each column of times, and whether it is written in INT96; a struct has it too."""
    for name, (times, int96) in columns.items():
        struct = pa.StructArray.from_arrays([times], ["at"])
        table = pa.table({"row": [name] * len(times), "x": times, "s": struct})
        data = encoded(table, use_deprecated_int96_timestamps=int96)
        store.put(f"{name}.parquet", data)
    return take_snapshot(Source(store.uri), ALL)


UTC = STAMPS.cast(pa.timestamp("us", "UTC"))


@pytest.mark.parametrize("other", [UTC, STAMPS, UTC.cast(pa.timestamp("ms", "UTC"))])
def test_int96_has_the_zone_of_the_other_files(local: Store, other: pa.Array) -> None:
    taken = put_times(local, a=(STAMPS, True), b=(other, False), c=(pa.nulls(3), False))
    assert find_drift(taken.files, ["x", "s.at"], exact=["x"]) == ()
    wanted = pa.timestamp("us", other.type.tz)
    assert [taken.schema.field(name).type for name in ("x", "s.at")] == [wanted] * 2
    moments = STAMPS.cast(wanted).to_pylist()
    for split in cut_splits(taken, 100, 1 << 20):
        for batch, _ in read_rows(local, split, ("x", "s.at"), 10, types=taken.schema):
            expected = [None] * 3 if split.key == "c.parquet" else moments
            assert [column.to_pylist() for column in batch.columns] == [expected] * 2


def test_a_time_without_a_zone_beside_utc_is_refused_with_what_to_do(local: Store) -> None:
    taken = put_times(local, a=(STAMPS, True), b=(UTC, False), c=(STAMPS, False))
    (drift,) = find_drift(taken.files, ["x"])
    assert str(drift) == (
        "c.parquet: column 'x': expected timestamp[us, tz=UTC], found timestamp[us]; write the "
        "times of all files with a zone, or of all without"
    )
