"""Vacuum removes what nobody needs, and nothing else, however much time passes."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.output.committed import CommittedDays
from cluster.lake.output.shard import find_missing
from cluster.lake.output.table import LakeTable, list_files, select_day
from cluster.lake.output.vacuum import read_store_time, vacuum
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.cluster.lake.flag_rows import SCHEMA
from tests.cluster.lake.output.days import TABLES, A, B, C, Run, vacuum_after

MINUTE = 1 / 24 / 60


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "lake"))


@pytest.mark.parametrize(
    ("days", "hours", "kept"), [(MINUTE, 0, True), (0.9, 0, True), (6, 168, True), (9, 168, False)]
)
def test_a_run_that_is_not_committed_keeps_its_files_until_it_is_ended_with_its_journal(
    store: Store, days: float, hours: float, kept: bool
) -> None:
    run = Run(store, A)
    run.write()
    run.journal.record("task", {})
    vacuum_after(store, days, hours)
    left = list(run.journal.records(["task"]))
    assert (run.files(), left, run.journal.is_begun()) == (3 * kept, [{}] * kept, kept)


def test_a_run_that_is_begun_again_keeps_its_files_although_it_was_committed(store: Store) -> None:
    first = Run(store, A)
    first.play()
    Run(store, B).play()
    first.journal.reopen()
    Run(store, A, attempt=2).write()
    assert first.files() == 6
    assert vacuum_after(store, MINUTE, hours=0) == []


def test_the_newest_commit_of_each_bundle_is_kept_for_a_rollback(store: Store) -> None:
    for run_id, bundle in ((A, "first"), (B, "first"), (C, "second")):
        Run(store, run_id, bundle).play()
    removed = vacuum_after(store, 9)
    assert [Run(store, run_id).files() for run_id in (A, B, C)] == [0, 3, 3]
    assert sorted(removed) == sorted(f"{name}/day=d1/part-{A}-task-1.parquet" for name in TABLES)


def test_a_file_that_was_replaced_a_moment_ago_is_kept_for_its_readers(store: Store) -> None:
    """However old it is itself."""
    Run(store, A).play()
    Run(store, B).play()
    for hours, left in ((168, 3), (0, 0)):
        vacuum_after(store, 6, hours)
        assert (Run(store, A).files(), Run(store, B).files()) == (left, 3)


def test_the_tables_beside_the_flags_keep_what_the_flags_name(local: Store) -> None:
    """A run with the same bundle died between its commits."""
    Run(local, A).play()
    dead = Run(local, B)
    dead.commit(dead.write(), TABLES[:2])
    vacuum_after(local, 9)
    assert Run(local, A).files() == 3
    assert not dead.journal.is_begun()
    again = Run(local, A)
    for name in TABLES[:2]:
        table = LakeTable(local.child(name), SCHEMA, name)
        version = LakeTable(local.child("flags"), SCHEMA, "flags").find_beside("d1", name)
        assert version is not None
        assert table.is_run_committed("d1", B)
    assert again.files() == 3


def test_the_journal_of_a_committed_run_without_its_card_is_kept(local: Store) -> None:
    run = Run(local, A)
    run.commit(run.write())
    vacuum_after(local, 9)
    assert (run.files(), run.journal.is_begun()) == (3, True)


def test_a_dry_run_removes_nothing_and_names_the_same(local: Store) -> None:
    Run(local, A).write()
    Run(local, B).play()
    later = read_store_time(local) + timedelta(days=9)
    before = local.list()
    named = vacuum(local, later, timedelta(days=7), dry_run=True)
    assert local.list() == before
    assert vacuum(local, later, timedelta(days=7), dry_run=False) == named
    assert len(named) == 4  # the plan, and a shard of each table


def test_files_of_other_tools_are_left_alone(local: Store) -> None:
    Run(local, A).play()
    local.put("flags/_symlink_format_manifest/manifest", b"x")
    local.put("flags/day=d1/part-of-another.parquet", b"x")
    assert vacuum_after(local, 9) == ["flags/day=d1/part-of-another.parquet"]


def test_the_time_is_the_stores_own(store: Store) -> None:
    store.put("key", b"")
    assert abs(read_store_time(store) - store.stat("key").modified) < timedelta(seconds=60)
    assert [found.key for found in store.list()] == ["key"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([A, B, C]),
        st.sampled_from(["first", "second"]),
        st.integers(0, 3),  # tables that it commits
        st.integers(0, 12),  # days since
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.thorough
@given(steps=STEPS)
@settings(max_examples=12)
def test_what_a_table_names_is_there_after_any_history(
    steps: list[tuple[str, str, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lake")
    output = open_store(str(folder))
    last = ""
    for number, (run_id, bundle, tables, days) in enumerate(steps):
        run = Run(output, run_id, bundle, attempt=number)
        run.journal.reopen()
        run.commit(run.write(), TABLES[:tables])
        if tables == len(TABLES):
            run.end()
            last = run_id
        _age(folder, days)
        vacuum_after(output, 0)
        for name in TABLES:
            store = output.child(name)
            assert not find_missing(store, select_day(list_files(open_table(store)), store, "d1"))
    if last and tables == len(TABLES):
        assert CommittedDays(output).is_run_whole("d1", last)


def _age(folder: Path, days: int) -> None:
    """Let days pass: each file becomes older."""
    for path in folder.rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * 86400
            os.utime(path, (when, when))
