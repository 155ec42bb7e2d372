"""A table is read as its log says: exactly the files of one version, with the log's values."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from cluster.lake.input.file_types import find_drift
from cluster.lake.input.partitions import Source, find_days, list_days, propose_partition
from cluster.lake.input.reading import open_split, read_rows
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded, numbered

DAY = "2026-11-20"


def write(store: Store, rows: pa.Table, keys: Sequence[str] = (), **options: Any) -> None:
    write_deltalake(
        store.delta_uri,
        rows,
        partition_by=list(keys) or None,
        storage_options=store.delta_options,
        **{"mode": "append", **options},
    )


def open_delta(store: Store) -> DeltaTable:
    return DeltaTable(store.delta_uri, storage_options=store.delta_options)


def rows_of(first: int, count: int, **partition: str | int | None) -> pa.Table:
    table = numbered(count, first)
    for name, value in partition.items():
        kind = pa.int64() if isinstance(value, int) else pa.string()
        table = table.append_column(name, pa.array([value] * count, kind))
    return table


def read(taken: Snapshot, *columns: str) -> list[tuple[Any, ...]]:
    """The rows, in order of their values; splits go through JSON, as they do to workers."""
    found: list[tuple[Any, ...]] = []
    for split in cut_splits(taken, 10**6, 10**9):
        sent = Split.from_document(json.loads(json.dumps(split.to_document())))
        assert sent == split
        for batch, _ in read_rows(open_store(taken.uri), sent, columns, 100):
            found += zip(*(column.to_pylist() for column in batch.columns), strict=True)
    return sorted(found, key=str)


def log(folder: Path, *actions: dict[str, Any], **metadata: Any) -> str:
    """Write a log by hand, with these actions after the table's metadata."""
    fields = [{"name": "n", "type": "long", "nullable": True, "metadata": {}}]
    keys = metadata.get("partitionColumns", [])
    fields += [{"name": key, "type": "string", "nullable": True, "metadata": {}} for key in keys]
    head = {
        "id": "00000000-0000-0000-0000-000000000000",
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": [],
        "configuration": {},
        "createdTime": 1,
        **metadata,
    }
    if not any("protocol" in action for action in actions):
        actions = ({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}, *actions)
    lines = map(json.dumps, (actions[0], {"metaData": head}, *actions[1:]))
    (folder / "_delta_log").mkdir(parents=True)
    (folder / "_delta_log" / f"{0:020}.json").write_text("\n".join(lines))
    return str(folder)


def add(path: str, **partition: str | None) -> dict[str, Any]:
    file = {"path": path, "partitionValues": partition, "size": 1, "modificationTime": 1}
    return {"add": {**file, "dataChange": True}}


def feature(name: str) -> dict[str, Any]:
    versions = {"minReaderVersion": 3, "minWriterVersion": 7}
    return {"protocol": {**versions, "readerFeatures": [name], "writerFeatures": [name]}}


def test_rows_that_were_compacted_replaced_or_deleted_are_not_read(store: Store) -> None:
    for first in (0, 10, 20):
        write(store, rows_of(first, 10, day=DAY), ["day"])
    write(store, rows_of(100, 5, day="2026-11-21"))
    source = Source(store.uri, "day")
    frozen = take_snapshot(source, DAY)
    assert (frozen.version, frozen.rows) == (3, 30)

    open_delta(store).optimize.compact()
    open_delta(store).delete("n >= 25 and n < 100")
    write(store, rows_of(200, 2, day="2026-11-21"), mode="overwrite", predicate="day='2026-11-21'")
    later = Source(store.uri, "day")
    assert list_days(later) == (DAY, "2026-11-21")
    now = take_snapshot(later, DAY)
    assert read(now, "n") == sorted(((n,) for n in range(25)), key=str)
    assert read(take_snapshot(later, "2026-11-21"), "n") == [(200,), (201,)]
    assert now.version == open_delta(store).version()
    assert now.digest != frozen.digest

    # The first source stays with its version, while the table moves on.
    again = take_snapshot(source, DAY)
    assert (again.version, again.digest) == (3, frozen.digest)
    assert read(frozen, "n") == sorted(((n,) for n in range(30)), key=str)


def test_a_column_that_the_table_got_later_is_null_in_older_files(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    id_type = pa.struct([("h", pa.string())])
    old = rows_of(0, 2, day=DAY).append_column("id", pa.array([{"h": "a"}] * 2, id_type))
    write(store, old, ["day"])
    id_type = pa.struct([("h", pa.string()), ("p", pa.int32())])
    new = rows_of(2, 1, day=DAY).append_column("id", pa.array([{"h": "b", "p": 53}], id_type))
    new = new.append_column("extra", pa.array([0.5]))
    write(store, new, ["day"], schema_mode="merge")
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert not find_drift(taken.files, ["extra", "id.p", "n"])
    assert taken.schema.field("id.p").type == pa.int32()
    assert "day" not in taken.schema.names
    names = ("n", "extra", "id.p", "id.h")
    expected = [(0, None, None, "a"), (1, None, None, "a"), (2, 0.5, 53, "b")]
    found: list[tuple[Any, ...]] = []
    for split in cut_splits(taken, 10**6, 10**9):
        with open_split(store, split, types=taken.schema) as source:
            for batch, _ in source.read_rows(names, 100, ("id.h",)):
                assert batch.schema.field("extra").type == pa.float64()
                found += zip(*(column.to_pylist() for column in batch.columns), strict=True)
            assert source.select_rows(("extra",), np.array([0]), 8).num_rows == 1
        filtered = read_rows(store, split, ("n",), 100, "extra is None", types=taken.schema)
        assert [one for rows in filtered for one in rows.batch["n"].to_pylist()] in ([0, 1], [])
    assert sorted(found, key=str) == expected


def test_a_commit_of_another_day_leaves_a_day_as_done(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write(store, rows_of(0, 3, day=DAY), ["day"])
    first = take_snapshot(Source(store.uri, "day"), DAY)
    write(store, rows_of(3, 3, day="2026-11-21"))
    second = take_snapshot(Source(store.uri, "day"), DAY)
    assert (first.version, second.version) == (0, 1)
    assert first.digest == second.digest


def test_the_log_has_the_values_of_partition_columns(tmp_path: Path) -> None:
    """Folders have any names, as Databricks writes them; a null and a slash are values."""
    for name in ("a1", "b2", "c3"):
        open_store(str(tmp_path)).put(f"{name}/x y.parquet", encoded(numbered(1)))
    uri = log(
        tmp_path,
        add("a1/x%20y.parquet", day="2026-11-20", region="eu/west=%2F"),
        add("b2/x%20y.parquet", day="2026-11-20", region=None),
        add("c3/x%20y.parquet", day="2026-11-21", region="us"),
        partitionColumns=["region", "day"],
    )
    source = Source(uri, "day")
    assert list_days(source) == ("2026-11-20", "2026-11-21")
    taken = take_snapshot(source, DAY)
    assert read(taken, "region", "n") == [("eu/west=%2F", 0), (None, 0)]
    assert "day" not in taken.schema.names
    assert read(take_snapshot(Source(uri), "all"), "day") == [(DAY,), (DAY,), ("2026-11-21",)]
    assert propose_partition(uri) == "day"
    file = taken.files[0]
    moved = replace(taken, files=(replace(file, logged="region=us/day=2026-11-20/"),))
    assert moved.digest != replace(taken, files=(file,)).digest


def test_partition_columns_form_a_date_in_any_order(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for day in (9, 10):
        write(store, rows_of(day, 2, day=day, month=11, year=2026), ["day", "month", "year"])
    source = Source(store.uri, ("year", "month", "day"))
    assert list_days(source) == ("2026-11-09", "2026-11-10")
    assert read(take_snapshot(source, "2026-11-10"), "n") == [(10,), (11,)]


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us", "UTC"), pa.timestamp("us")])
def test_a_partition_column_of_dates_or_times_names_days(tmp_path: Path, kind: pa.DataType) -> None:
    store = open_store(str(tmp_path))
    days = pa.array([datetime(2026, 11, 20)]).cast(kind)
    write(store, numbered(1).append_column("day", days), ["day"])
    source = Source(store.uri, "day")
    assert list_days(source) == (DAY,)
    assert read(take_snapshot(source, DAY), "n") == [(0,)]


def test_rows_without_a_day_are_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for day in (DAY, None, "rest"):
        write(store, rows_of(0, 2, day=day), ["day"])
    days = find_days(Source(store.uri, "day"))
    assert days.names == (DAY,)
    assert [(one.name, one.files) for one in days.stray] == [
        ("day=__HIVE_DEFAULT_PARTITION__/", 1),
        ("day=rest/", 1),
    ]


def test_equal_files_of_a_table_are_rows_that_were_put_twice(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "t.parquet"))  # Spark names folders so
    folder = store.child("t.parquet")
    for _ in range(2):
        write(folder, numbered(3))
    taken = take_snapshot(Source(folder.uri), "all")
    assert (taken.rows, taken.rejected) == (6, ())


def test_a_file_that_is_gone_is_set_aside(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write(store, numbered(3))
    write(store, numbered(4))
    gone = take_snapshot(Source(store.uri), "all").files[0]
    (tmp_path / gone.key).unlink()
    taken = take_snapshot(Source(store.uri), "all")
    assert [(file.key, file.rule) for file in taken.rejected] == [(gone.key, "vanished")]
    assert taken.rows == 7 - gone.rows


def test_a_table_without_rows_has_no_day(tmp_path: Path) -> None:
    write(open_store(str(tmp_path)), numbered(3))
    DeltaTable(str(tmp_path)).delete()
    assert list_days(Source(str(tmp_path))) == ()
    with pytest.raises(Refusal, match="no rows"):
        take_snapshot(Source(str(tmp_path)), "all")


@pytest.mark.parametrize(
    "path",
    ["../x.parquet", "a/%2e%2e/%2e%2e/x.parquet", "/etc/x.parquet", "s3://other/x.parquet"],
)
def test_files_outside_of_the_table_are_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "x.parquet").write_bytes(encoded(numbered(3)))
    uri = log(tmp_path / "table", add(path))
    with pytest.raises(Refusal, match="expected files in the table's folder"):
        take_snapshot(Source(uri), "all")


def test_a_link_out_of_the_table_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(encoded(numbered(3)))
    uri = log(tmp_path / "table", add("x.parquet"))
    (tmp_path / "table" / "x.parquet").symlink_to(tmp_path / "x.parquet")
    with pytest.raises(Refusal, match="link"):
        take_snapshot(Source(uri), "all")


@pytest.mark.parametrize("name", ["deletionVectors", "variantType", "somethingNew"])
def test_a_feature_that_changes_what_files_mean_is_refused(tmp_path: Path, name: str) -> None:
    uri = log(tmp_path, feature(name), add("x.parquet"))
    with pytest.raises(Refusal, match=f"the feature '{name}'"):
        find_days(Source(uri))


@pytest.mark.parametrize("mode", ["name", "id"])
def test_mapped_columns_are_refused(tmp_path: Path, mode: str) -> None:
    protocol = {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}
    settings = {"delta.columnMapping.mode": mode}
    uri = log(tmp_path, protocol, add("x.parquet"), configuration=settings)
    with pytest.raises(Refusal, match="the feature 'columnMapping'"):
        find_days(Source(uri))


def test_features_that_change_nothing_are_read(tmp_path: Path) -> None:
    open_store(str(tmp_path)).put("x.parquet", encoded(numbered(3)))
    uri = log(tmp_path, feature("columnMapping"), add("x.parquet"))  # declared, and not used
    assert take_snapshot(Source(uri), "all").rows == 3


def test_a_broken_log_is_refused_without_its_text(tmp_path: Path) -> None:
    write(open_store(str(tmp_path)), numbered(3))
    (tmp_path / "_delta_log" / f"{1:020}.json").write_text('{"add": {"path": "4111 1111')
    with pytest.raises(Refusal, match="cannot be read: expected every version") as refused:
        find_days(Source(str(tmp_path)))
    assert "4111" not in str(refused.value)


def test_a_partition_that_the_table_lacks_is_refused(tmp_path: Path) -> None:
    write(open_store(str(tmp_path)), rows_of(0, 3, region="eu", day=DAY), ["region"])
    for partition in ("day", "%Y/%m/%d"):
        with pytest.raises(Refusal, match="is partitioned by region: expected"):
            find_days(Source(str(tmp_path), partition))


@pytest.mark.parametrize(
    ("marker", "kind"), [("metadata/v1.metadata.json", "Iceberg"), (".hoodie/x", "Hudi")]
)
@pytest.mark.parametrize("folder", ["", "inner/"])
def test_other_tables_are_refused(store: Store, marker: str, kind: str, folder: str) -> None:
    store.put(f"{folder}{marker}", b"{}")
    store.put(f"{folder}day={DAY}/x.parquet", encoded(numbered(3)))
    for partition in (None, "day"):
        with pytest.raises(Refusal, match=f"{kind} table.*export"):
            find_days(Source(store.uri, partition))


def test_a_part_of_a_table_is_refused(store: Store) -> None:
    write(store.child("t"), rows_of(0, 3, day=DAY), ["day"])
    for inside in (f"t/day={DAY}", "t/_delta_log"):
        with pytest.raises(Refusal, match=r"lies in the Delta table .*/t: expected the whole"):
            take_snapshot(Source(f"{store.uri}/{inside}"), "all")


def test_a_link_to_a_part_of_a_table_is_refused(tmp_path: Path) -> None:
    write(open_store(str(tmp_path / "t")), rows_of(0, 3, day=DAY), ["day"])
    (tmp_path / "link").symlink_to(tmp_path / "t" / f"day={DAY}")
    with pytest.raises(Refusal, match="lies in the Delta table"):
        take_snapshot(Source(str(tmp_path / "link")), "all")


def test_a_table_among_files_is_refused(store: Store) -> None:
    write(store.child("t"), rows_of(0, 3, day=DAY), ["day"])
    for partition, day in ((None, "all"), ("day", DAY)):
        with pytest.raises(Refusal, match="t in the input is a Delta table"):
            take_snapshot(Source(store.uri, partition), day)


def test_a_folder_that_only_looks_like_a_log_is_no_table(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for key in ("_delta_log/0.parquet", "metadata/notes.json"):
        store.put(key, b"{}")
    store.put("x.parquet", encoded(numbered(3)))
    assert take_snapshot(Source(store.uri), "all").version is None


@pytest.mark.parametrize("place", ["out", "day=2026-11-20/out", ""])
@pytest.mark.parametrize("partition", [None, "day"])
def test_an_input_that_holds_an_output_is_refused(
    store: Store, place: str, partition: str | None
) -> None:
    store.put(f"day={DAY}/a.parquet", encoded(rows_of(0, 2)))
    where = f"{store.uri}/{place}".rstrip("/")
    store.put(f"{place}/_watch.json".lstrip("/"), b"{}")
    source = Source(store.uri, partition)
    with pytest.raises(Refusal, match=f"{re.escape(where)} in the input is the output of a watch"):
        take_snapshot(source, DAY if partition else list_days(source)[0])
