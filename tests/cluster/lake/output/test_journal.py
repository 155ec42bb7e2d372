"""The journal holds one plan, each attempt's number once, and one record for each task."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.lake.output.journal import Journal
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models import canonical_json
from models.refusal import Refusal


def test_the_first_record_of_a_task_counts(store: Store) -> None:
    one, other = Journal(store, "run-1"), Journal(store, "run-1")
    assert one.record("t1", {"rows": 3, "by": "one"}) == {"rows": 3, "by": "one"}
    assert other.record("t1", {"rows": 3, "by": "other"}) == {"rows": 3, "by": "one"}
    other.record("t2", {"rows": 4, "by": "other"})
    expected = [{"rows": 3, "by": "one"}, {"rows": 4, "by": "other"}]
    tasks = ("t1", "t2", "t3")
    assert list(one.records(tasks)) == list(other.records(tasks)) == expected
    assert list(one.records(["t2"])) == expected[1:]
    assert list(one.records(["t2", "t9"], planned=50)) == expected[1:]


def test_a_task_that_is_discarded_is_done_again_and_no_other(store: Store) -> None:
    journal = Journal(store, "run")
    for task in ("t1", "t2", "u3"):
        journal.record(task, {"by": "first", "task": task})
    journal.write_segment({"tasks": {"t1": {}, "u3": {}}})
    journal.write_segment({"tasks": {"t2": {}}})
    journal.discard({"u3"})
    assert [list(one["tasks"]) for one in journal.segments()] == [["t2"]]
    assert [one["task"] for one in journal.records(("t1", "t2", "u3"))] == ["t1", "t2"]
    assert journal.record("u3", {"by": "second"}) == {"by": "second"}


def test_another_run_shares_nothing(store: Store) -> None:
    one, other = Journal(store, "run-1"), Journal(store, "run-2")
    one.record("t1", {})
    assert one.begin_attempt("t1", "driver") == 1
    assert list(other.records(["t1"])) == []
    assert other.begin_attempt("t1", "driver") == 1


def test_an_attempt_is_known_by_its_driver_its_steps_and_its_end(store: Store) -> None:
    journal = Journal(store, "run")
    assert [journal.begin_attempt("s", driver) for driver in ("a", "a", "b")] == [1, 2, 3]
    journal.begin_step("s", 2, 0)
    journal.begin_step("s", 2, 4)
    journal.end_attempt("s", 2, died=True)
    journal.end_attempt("s", 3, died=False)
    assert journal.read_attempt("s", 1) == ("a", (), None)
    assert journal.read_attempt("s", 2) == ("a", (0, 4), True)
    assert journal.read_attempt("s", 3) == ("b", (), False)


def test_a_doubt_is_shared_by_drivers_that_saw_the_same(store: Store) -> None:
    journal = Journal(store, "run")
    assert not journal.doubt("s", "unreadable", "a")
    assert not journal.doubt("s", "unreadable", "a")
    assert not journal.doubt("s", "vanished", "b")
    assert journal.doubt("s", "unreadable", "b")


def test_no_two_racing_attempts_get_one_number(store: Store) -> None:
    with ThreadPoolExecutor(6) as threads:
        got = threads.map(lambda n: Journal(store, "run").begin_attempt("s", str(n)), range(6))
        assert sorted(got) == [1, 2, 3, 4, 5, 6]


def test_racing_workers_all_get_the_same_record(store: Store) -> None:
    with ThreadPoolExecutor(6) as threads:
        seen = list(threads.map(lambda n: Journal(store, "run").record("s", {"by": n}), range(6)))
    assert len({record["by"] for record in seen}) == 1


def test_a_plan_is_written_once_and_a_result_is_replaced(store: Store) -> None:
    journal = Journal(store, "run")
    assert journal.read_result() is None
    assert journal.read_plan() is None
    plan = ['{"id":"a","rows":1}', '{"id":"b","rows":2}']
    tasks = [{"rows": 1, "id": "a"}, {"rows": 2, "id": "b"}]
    assert journal.write_plan({"day": "1"}, tasks) == plan
    assert journal.write_plan({"day": "1"}, [{"id": "c"}]) == plan
    assert journal.read_plan() == plan
    assert json.loads(store.read("run/plan.json")) == {"day": "1", "tasks": tasks}
    journal.write_result({"status": "refused"})
    journal.write_result({"status": "committed"})
    assert journal.read_result() == {"status": "committed"}


def test_a_thousand_records_are_read_together(tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = Journal(open_store(str(tmp_path_factory.mktemp("runs"))), "run")
    for index in range(1000):
        journal.store.put(
            f"tasks/{index % 10}/{index:04}.json", canonical_json.encode({"index": index})
        )
    names = {f"{index:04}" for index in range(1000)}
    assert sorted(r["index"] for r in journal.records(names)) == list(range(1000))


def test_segments_stand_beside_the_records(store: Store) -> None:
    journal = Journal(store, "run")
    journal.record("t1", {"rows": 3})
    for rows in (3, 4):
        journal.write_segment({"rows": rows})
    assert sorted(segment["rows"] for segment in journal.segments()) == [3, 4]
    assert list(journal.records(["t1"])) == [{"rows": 3}]
    assert not list(Journal(store, "other").segments())


def test_a_damaged_record_is_refused_by_name(store: Store) -> None:
    journal = Journal(store, "run")
    journal.store.put("tasks/t/t1.json", b'{"rows": ')
    with pytest.raises(Refusal, match=r"run/tasks/t/t1\.json: expected a JSON document"):
        list(journal.records(["t1"]))
