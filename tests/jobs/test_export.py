"""An export is plain Parquet that any reader finds, whole or not at all."""

import io
import json
import threading
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.flags import export, read
from models.refusal import Refusal
from tests.jobs.flag_tables import commit, flags


def exported(store: Store) -> dict[str, int]:
    """Rows by key of the Parquet files at a store."""
    return {
        found.key: pq.ParquetFile(io.BytesIO(store.read(found.key))).metadata.num_rows
        for found in store.list()
        if found.key.endswith(".parquet")
    }


def test_an_export_is_plain_hive_partitioned_parquet(flag_table: Store, store: Store) -> None:
    target = store.child("plain")
    done = export(flag_table.uri, target.uri)
    assert done.rows == 6
    assert exported(target) == {
        "day=2026-11-21/part-0000000002.parquet": 3,
        "day=2026-11-22/part-0000000002.parquet": 2,
        "day=a%20b%2Fc%3D%2520/part-0000000002.parquet": 1,
    }
    assert json.loads(target.read("_anomaray_export.json"))["complete"] is True


def test_a_reader_without_delta_finds_the_same_rows(local_flags: Store, tmp_path: Path) -> None:
    export(local_flags.uri, str(tmp_path / "plain"))
    files = f"{tmp_path}/plain/*/*.parquet"
    scan = f"FROM read_parquet('{files}', hive_partitioning = true, hive_types_autocast = false)"
    with duckdb.connect() as plain:
        rows = plain.execute(f"SELECT uid, day, severity {scan} ORDER BY uid").fetchall()
    ours = read(local_flags.uri).sort_values("uid")
    assert rows == list(ours[["uid", "day", "severity"]].itertuples(index=False, name=None))


def test_a_second_export_replaces_the_first(flag_table: Store, store: Store) -> None:
    target = store.child("plain")
    export(flag_table.uri, target.uri)
    commit(flag_table, flags("2026-11-23", 4))
    export(flag_table.uri, target.uri)
    assert len(exported(target)) == 4
    assert all(key.endswith("part-0000000003.parquet") for key in exported(target))
    assert sum(exported(target).values()) == 10


def test_an_export_that_died_half_way_is_made_whole_by_the_next(
    local_flags: Store, tmp_path: Path
) -> None:
    target = open_store(str(tmp_path / "plain"))
    target.put("day=2026-11-22", b"a file where a folder must be")
    target.create("_anomaray_export.json", b'{"format": 1, "files": []}')
    with pytest.raises((OSError, Refusal)):
        export(local_flags.uri, target.uri)
    assert json.loads(target.read("_anomaray_export.json"))["complete"] is False
    target.delete("day=2026-11-22")
    commit(local_flags, flags("2026-11-23", 1))
    export(local_flags.uri, target.uri)
    assert sum(exported(target).values()) == 7
    assert all(key.endswith("part-0000000003.parquet") for key in exported(target))


def test_an_export_leaves_the_files_of_others_alone(local_flags: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "theirs"))
    target.put("day=2026-11-21/part-0.parquet", b"theirs")
    with pytest.raises(Refusal, match=r"1 other objects \(day=2026-11-21/part-0\.parquet"):
        export(local_flags.uri, target.uri)
    with pytest.raises(Refusal, match="expected an empty target"):
        export(local_flags.uri, local_flags.uri)
    assert [found.key for found in target.list()] == ["day=2026-11-21/part-0.parquet"]


@pytest.mark.parametrize(
    "marker",
    [
        b"",
        b"[]",
        b'{"format": 2, "files": []}',
        b'{"format": 1, "files": [{"key": "theirs.parquet"}]}',
        b'{"format": 1, "files": [{"key": "day=x/../../part-0000000001.parquet"}]}',
    ],
)
def test_a_marker_that_is_not_ours_deletes_nothing(
    marker: bytes, local_flags: Store, tmp_path: Path
) -> None:
    target = open_store(str(tmp_path / "plain"))
    target.put("_anomaray_export.json", marker)
    target.put("theirs.parquet", b"theirs")
    with pytest.raises(Refusal, match=r"_anomaray_export\.json"):
        export(local_flags.uri, target.uri)
    assert target.read("theirs.parquet") == b"theirs"
    assert target.read("_anomaray_export.json") == marker


def test_of_two_first_exports_at_once_one_is_refused_or_both_agree(
    flag_table: Store, store: Store
) -> None:
    target = store.child("plain")
    refusals: list[str] = []

    def run() -> None:
        try:
            export(flag_table.uri, target.uri)
        except Refusal as refusal:
            refusals.append(str(refusal))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) <= 1
    assert sum(exported(target).values()) == 6
