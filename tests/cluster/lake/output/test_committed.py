"""A day is done if one run has committed it in every table, and all of its files are there."""

from pathlib import Path

import pytest

from cluster.lake.output.committed import CommittedDays, open_beside
from cluster.lake.output.schemas import FLAGS, QUARANTINE, SCORES
from cluster.lake.output.table import LakeTable
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.cluster.lake.flag_rows import SCHEMA, dataset_of
from tests.cluster.lake.output.days import TABLES, A, B, Run


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


def is_whole(output: Store, run_id: str) -> bool:
    """Asked by the run and by the snapshot, which agree where the day is the run's."""
    days = CommittedDays(output)
    assert days.is_run_whole("d1", run_id) <= days.is_snapshot_whole("d1", "s1")
    return days.is_run_whole("d1", run_id)


def read_ids(output: Store, name: str) -> list[int]:
    """As a reader sees the day that the flags are of; one that reads all days sees the same."""
    flags, found = open_table(output.child(FLAGS)), []
    for day in ("d1", None):
        beside = open_beside(flags, output, name, day)
        found.append([] if beside is None else beside.read().read_all()["id"].to_pylist())
    assert found[0] == found[1]
    return found[0]


def test_a_day_is_whole_once_its_flags_are_committed(store: Store) -> None:
    run = Run(store, A)
    shards = run.write()
    for tables in range(len(TABLES)):
        run.commit(shards, TABLES[:tables])
        assert not is_whole(store, A)
        assert not CommittedDays(store).is_snapshot_whole("d1", "s1")
    run.commit(shards)
    assert is_whole(store, A)
    assert not is_whole(store, B)
    assert not CommittedDays(store).is_snapshot_whole("d1", "another")
    assert not CommittedDays(store).is_snapshot_whole("d2", "s1")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("change", ["deleted", "cut"])
def test_a_day_with_a_file_that_is_gone_or_cut_is_not_done(
    local: Store, name: str, change: str
) -> None:
    run = Run(local, A)
    shards = run.write()
    run.commit(shards)
    store, key = local.child(name), shards[name].key
    if change == "deleted":
        store.delete(key)
    else:
        store.put(key, store.read(key)[:-1])
    assert not is_whole(local, A)
    assert not CommittedDays(local).is_snapshot_whole("d1", "s1")
    again = Run(local, A, attempt=2)
    again.commit({**shards, name: again.write()[name]})
    assert is_whole(local, A)
    table = LakeTable(local.child(name), SCHEMA, name)
    assert dataset_of(table).to_table()["id"].to_pylist() == [10]


@pytest.mark.parametrize("tables", [1, 2])
def test_a_run_that_died_between_two_tables_changes_nothing_for_readers(
    store: Store, tables: int
) -> None:
    Run(store, A).play()
    dead = Run(store, B)
    dead.commit(dead.write(), TABLES[:tables])
    assert not is_whole(store, A)
    assert not CommittedDays(store).is_snapshot_whole("d1", "s1")
    assert [read_ids(store, name) for name in (QUARANTINE, SCORES)] == [[10], [10]]


def test_the_tables_beside_the_flags_are_put_right_by_a_rerun(local: Store) -> None:
    run, dead = Run(local, A), Run(local, B)
    shards = run.write()
    run.commit(shards)
    dead.commit(dead.write(), TABLES[:2])
    run.commit(shards)
    assert is_whole(local, A)
    for name in TABLES:
        table = LakeTable(local.child(name), SCHEMA, name)
        assert dataset_of(table).to_table()["id"].to_pylist() == [10]


def test_no_commit_no_rows(local: Store) -> None:
    run = Run(local, A)
    run.commit(run.write(), TABLES[:2])
    assert read_ids(local, SCORES) == []
    assert read_ids(local, "unknown") == []


def test_a_run_without_its_result_is_not_accounted_for(local: Store) -> None:
    run = Run(local, A)
    run.commit(run.write())
    assert not CommittedDays(local).is_accounted_for("d1")
    run.end()
    assert CommittedDays(local).is_accounted_for("d1")
    run.journal.store.delete_all("")
    assert CommittedDays(local).is_accounted_for("d1")


def test_a_commit_of_the_same_files_is_no_other_commit(local: Store) -> None:
    run = Run(local, A)
    shards = run.write()
    run.commit(shards)
    versions = [LakeTable(local.child(name), SCHEMA, name).version() for name in TABLES]
    run.commit(shards)
    assert versions == [LakeTable(local.child(name), SCHEMA, name).version() for name in TABLES]
    assert LakeTable(local.child(FLAGS), SCHEMA, FLAGS).find_beside("d1", SCORES) == versions[1]
