"""A commit happens once and whole, whoever races and whatever is killed."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cluster.lake.output.table import Commit, DayTakenMeanwhile, LakeTable, count_commits
from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models.refusal import Refusal, SchemaMismatch
from tests.cluster.lake.flag_rows import SCHEMA, dataset_of, flags, keys_of, shards
from tests.conftest import S3Server
from tests.faults.proxy import KINDS, FaultProxy, Rule


def ids(table: LakeTable, day: str | None = None) -> list[int]:
    if table.version() is None:
        return []
    where = None if day is None else pc.field("day") == day
    found: list[int] = dataset_of(table).to_table(["id"], filter=where).column("id").to_pylist()
    return sorted(found)


def days(table: LakeTable) -> list[str]:
    return sorted({logged.commit.day for logged in table.read_commits()})


def test_a_commit_makes_the_shards_visible(store: Store) -> None:
    table = flags(store)
    assert (table.version(), count_commits(open_table(table.store), "d1")) == (None, 0)
    assert (table.rows("d1"), table.read_commits()) == (0, ())
    made = shards(table, "d1", "r1", 0, 3, 2)
    assert ids(table) == [], "shards alone are not visible"
    table.commit(Commit("d1", "r1", "s1", {"rows": "100", "bundle": "b"}), made, 0)
    assert ids(table) == ids(table, "d1") == [0, 1, 2, 3, 4]
    assert dataset_of(table).schema.names == ["id", "ts", "reasons", "day"]
    assert keys_of(table) == [made[0].key, made[1].key]
    assert (table.rows("d1"), table.rows("d2"), days(table)) == (5, 0, ["d1"])
    assert table.read_commits()[0].commit.facts["bundle"] == "b"
    assert table.version() == 1


def test_a_rerun_replaces_its_day_and_no_other(store: Store) -> None:
    table = flags(store)
    table.commit(Commit("d1", "r1", "s1"), shards(table, "d1", "r1", 0, 3), 0)
    table.commit(Commit("d2", "r2", "s2"), shards(table, "d2", "r2", 10, 2), 0)
    assert count_commits(open_table(table.store), "d1") == 1
    table.commit(Commit("d1", "r3", "s3"), shards(table, "d1", "r3", 20, 1), 1)
    assert ids(table) == [10, 11, 20]
    assert count_commits(open_table(table.store), "d1") == 2
    assert [table.is_run_committed("d1", r) for r in ("r1", "r2", "r3")] == [False, False, True]
    assert table.is_run_committed("d2", "r2")


def test_the_commits_of_a_day_are_counted_without_knowing_the_schema(store: Store) -> None:
    table = flags(store)
    assert count_commits(open_table(table.store), "d1") == 0
    table.commit(Commit("d1", "r1", "s1"), [], 0)
    table.commit(Commit("d1", "r2", "s2"), [], 1)
    made = open_table(table.store)
    assert [count_commits(made, day) for day in ("d1", "d2")] == [2, 0]


@pytest.mark.parametrize("fault", ["reset", "lost-reply"])
def test_a_commit_whose_fate_is_not_known_is_looked_up(
    fault: str, s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, _ = KINDS[fault]
    rule = Rule(fault, kind, where=lambda r: r.is_conditional and "2.json" in r.key, times=1)
    with FaultProxy(s3_server.endpoint, fault) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        table = flags(open_store(s3_uri))
        table.commit(Commit("d1", "r1", "s1"), shards(table, "d1", "r1", 0, 3), 0)
        proxy.rules.append(rule)
        table.commit(Commit("d2", "r2", "s2"), shards(table, "d2", "r2", 3, 2), 0)
        assert ids(table) == [0, 1, 2, 3, 4]
    assert rule.struck == 1
    # Past the proxy: delta-rs holds the interpreter's lock here, and the proxy runs in it.
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    assert [logged.commit.run_id for logged in table.read_commits()[:2]] == ["r2", "r1"]


def test_an_earlier_run_can_be_committed_again_after_another(store: Store) -> None:
    table = flags(store)
    for seen, run in enumerate(("r1", "r2", "r1")):
        table.commit(Commit("d1", run, "s1"), shards(table, "d1", f"{run}{seen}", seen, 1), seen)
    assert ids(table) == [2]
    assert table.is_run_committed("d1", "r1")


def test_a_day_without_flags_is_committed_too(store: Store) -> None:
    table = flags(store)
    table.commit(Commit("d1", "r1", "s1", {"rows": "7"}), [], 0)
    assert table.is_run_committed("d1", "r1")
    assert (days(table), ids(table, "d1"), table.rows("d1")) == (["d1"], [], 0)
    table.commit(Commit("d1", "r2", "s2"), shards(table, "d1", "r2", 0, 2), 1)
    table.commit(Commit("d1", "r3", "s3"), [], 2)
    assert ids(table) == []


def test_a_second_commit_of_a_run_does_nothing(store: Store) -> None:
    table = flags(store)
    made = shards(table, "d1", "r1", 0, 2)
    first = table.commit(Commit("d1", "r1", "s1"), made, 0)
    assert table.commit(Commit("d1", "r1", "s1"), made, 0) == first
    assert table.commit(Commit("d1", "r1", "s1"), made, None) == first
    assert ids(table) == [0, 1]


def test_a_day_that_another_run_took_meanwhile_is_refused_and_names_it(store: Store) -> None:
    table = flags(store)
    table.commit(Commit("d1", "winner", "s1"), shards(table, "d1", "winner", 0, 2), 0)
    late = shards(table, "d1", "late", 10, 2)
    message = "day d1 of table flags was committed by run winner after run late began"
    with pytest.raises(DayTakenMeanwhile, match=message):
        table.commit(Commit("d1", "late", "s1"), late, 0)
    assert ids(table) == [0, 1]
    table.commit(Commit("d1", "late", "s1"), late, None)
    assert ids(table) == [10, 11], "without a fence the later one counts"


_COMMIT = """
import json, sys
from cluster.lake.output.shard import Shard
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from cluster.lake.output.table import Commit, DayTakenMeanwhile
from tests.conftest import S3Server
from tests.faults.proxy import KINDS, FaultProxy, Rule
from tests.cluster.lake.flag_rows import flags, shards
uri, day, run, first = sys.argv[1:]
table = flags(open_store(uri))
made = shards(table, day, run, int(first), 2)
print("ready", flush=True)
sys.stdin.readline()
try:
    table.commit(Commit(day, run, "s"), made, 0)
    print("committed")
except DayTakenMeanwhile as taken:
    print(f"refused: {taken}")
"""


def race(store: Store, days: list[str]) -> list[str]:
    """Commit each day in a process of its own, all at the same moment; what each prints."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", _COMMIT, store.uri, day, f"run{i}", str(10 * i)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i, day in enumerate(days)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate(timeout=60)[0].strip() for process in started]


@pytest.mark.thorough
def test_of_four_processes_racing_for_a_new_day_one_commits_and_so_does_another_day(
    store: Store,
) -> None:
    *said, other = race(store, ["d1"] * 4 + ["d0"])
    assert other == "committed"
    assert [s.split(":")[0] for s in said].count("committed") == 1
    winner = said.index("committed")
    for loser in said:
        assert loser == "committed" or f"was committed by run run{winner} after" in loser
    assert ids(flags(store)) == [10 * winner, 10 * winner + 1, 40, 41]
    assert days(flags(store)) == ["d0", "d1"]
    assert count_commits(open_table(flags(store).store), "d1") == 1


@pytest.mark.parametrize("shared", [True, False], ids=["one table", "a table each"])
def test_ten_threads_commit_ten_days(store: Store, shared: bool) -> None:
    table = flags(store)
    made = {f"d{i:02}": shards(table, f"d{i:02}", "r", i, 1) for i in range(10)}

    def commit(day: str) -> int:
        own = table if shared else flags(store)
        return own.commit(Commit(day, f"r-{day}", "s"), made[day], 0)

    with ThreadPoolExecutor(10) as threads:
        assert sorted(threads.map(commit, made)) == list(range(1, 11))
    assert ids(table) == list(range(10))


_DIE = """
import os, signal, sys
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.conftest import S3Server
from tests.faults.proxy import KINDS, FaultProxy, Rule
from tests.cluster.lake.flag_rows import flags, shards
table = flags(open_store(sys.argv[1]))
shards(table, "d1", "dead", 50, 3, 3)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.thorough
def test_a_driver_killed_before_its_commit_leaves_the_old_day(store: Store) -> None:
    table = flags(store)
    old = shards(table, "d1", "r1", 0, 2)
    table.commit(Commit("d1", "r1", "s1"), old, 0)
    dead = subprocess.run([sys.executable, "-c", _DIE, store.uri], check=False)
    assert dead.returncode == -signal.SIGKILL
    assert ids(table) == [0, 1]
    assert table.is_run_committed("d1", "r1")


@pytest.mark.parametrize("day", ["a b:c/d%41", "é", "50%", "x=y", "it's"])
def test_a_day_of_any_spelling_is_found_again(store: Store, day: str) -> None:
    table = flags(store)
    made = shards(table, day, "r1", 0, 2)
    table.commit(Commit(day, "r1", "s1"), made, 0)
    assert (ids(table, day), days(table), table.rows(day)) == ([0, 1], [day], 2)
    assert [shard.key for shard in made] == [
        o.key for o in table.store.list() if "_log" not in o.key
    ]
    table.commit(Commit(day, "r2", "s2"), shards(table, day, "r2", 5, 1), 1)
    assert ids(table) == [5]


def test_duckdb_and_pandas_see_the_rows(store: Store) -> None:
    table = flags(store)
    table.commit(Commit("d1", "r1", "s1"), shards(table, "d1", "r1", 0, 3), 0)
    table.commit(Commit("d2", "r2", "s1"), shards(table, "d2", "r2", 3, 4), 0)
    lake = duckdb.connect().register("flagged", dataset_of(table))
    counted = lake.execute(
        "select day, count(*), max(reasons[1].feature) from flagged group by day"
    )
    assert sorted(counted.fetchall()) == [("d1", 3, "f2"), ("d2", 4, "f6")]
    frame = dataset_of(table).to_table(filter=pc.field("day") == "d2").to_pandas()
    assert frame["id"].tolist() == [3, 4, 5, 6]
    assert str(frame["ts"].dt.tz) == "UTC"


def test_the_rows_of_recent_days_come_from_the_log(store: Store) -> None:
    table = flags(store)
    for index in range(1, 10):
        table.commit(Commit(f"d{index}", f"r{index}", "s", {"rows": str(index * 100)}), [], 0)
    table.commit(Commit("d5", "again", "s", {"rows": "555"}), [], 1)
    assert table.recent_rows("d7", 3) == [400, 555, 600]
    assert table.recent_rows("d9") == [200, 300, 400, 555, 600, 700, 800]
    assert table.recent_rows("d1") == []


def test_another_schema_is_refused_with_its_columns(store: Store) -> None:
    flags(store).commit(Commit("d1", "r1", "s1"), [], 0)
    wider = SCHEMA.append(pa.field("amount", pa.float64())).set(0, pa.field("id", pa.string()))
    other = LakeTable(store.child("flags"), wider, "flags")
    acts: list[Callable[[], object]] = [
        lambda: other.rows("d1"),
        lambda: other.commit(Commit("d1", "r2", "s1"), [], 1),
    ]
    for act in acts:
        with pytest.raises(SchemaMismatch, match="another schema") as refused:
            act()
        assert "column 'amount': the table has none, this spec writes" in str(refused.value)
        assert "column 'id': the table has" in str(refused.value)


def test_a_shard_of_another_day_is_refused(store: Store) -> None:
    table = flags(store)
    made = shards(table, "d2", "r1", 0, 1)
    with pytest.raises(Refusal, match=r"shard day=d2/part-.* of day d1: expected it in day=d1/"):
        table.commit(Commit("d1", "r1", "s1"), made, 0)


def test_the_log_says_what_other_readers_need(tmp_path: Path) -> None:
    table = flags(open_store(str(tmp_path)))
    made = shards(table, "a b", "r1", 0, 3)
    table.commit(Commit("a b", "r1", "s1"), made, 0)
    log = tmp_path / "flags" / "_delta_log" / f"{1:020}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (add,) = [line["add"] for line in lines if "add" in line]
    assert add["path"] == "day=a%2520b/part-r1-0-1.parquet", "a URL of day=a%20b/…"
    assert add["partitionValues"] == {"day": "a b"}
    assert json.loads(add["stats"]) == {"numRecords": 3}
    assert {line["txn"]["appId"]: line["txn"]["version"] for line in lines if "txn" in line} == {
        "day=a b": 1,
        "day=a b/run=r1": 1,
        "day=a b/snapshot=s1": 1,
    }
    assert (tmp_path / "flags" / made[0].key).exists()
