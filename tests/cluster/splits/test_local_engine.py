"""The local engine: results in order, bounded work, errors at once; and which engine is chosen."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.runtime.nodes import MEMORY, Node, find_this_node
from cluster.runtime.resources import Demand, plan_threads
from cluster.splits.local_engine import is_busy, map_in_threads
from cluster.splits.opening import choose_engine
from models.refusal import Refusal


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5), st.booleans())
def test_each_item_has_one_result(items: list[int], threads: int, in_order: bool) -> None:
    results = list(map_in_threads(lambda item: -item, items, threads, in_order))
    expected = [-item for item in items]
    assert (results if in_order else sorted(results)) == (
        expected if in_order else sorted(expected)
    )


def test_results_come_in_order_although_the_first_is_the_slowest() -> None:
    other_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert other_is_done.wait(60)
        else:
            other_is_done.set()
        return item

    assert list(map_in_threads(work, range(5), 2, in_order=True)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ahead", [1, 20])
def test_threads_are_ahead_of_who_reads_by_a_bounded_number(ahead: int) -> None:
    begun: list[int] = []
    enough = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if len(begun) >= 10 + ahead:
            enough.set()

    results = map_in_threads(work, range(100), 2, ahead=ahead)
    for _ in range(10):
        next(results)
    assert enough.wait(60)
    assert len(begun) <= 10 + 2 + ahead
    results.close()  # type: ignore[attr-defined]


def test_an_error_is_raised_and_nothing_is_begun_after_it() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 3:
            raise Refusal("the third")
        return item

    with pytest.raises(Refusal, match="the third"):
        list(map_in_threads(work, range(1000), 2, ahead=100))
    assert len(begun) <= 8


def test_a_thread_that_hangs_fails_the_run_in_bounded_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANOMARAY_STALL_SECONDS", "0.2")
    release = threading.Event()
    with pytest.raises(ConnectionError, match=r"no task was answered for 0 s.*STALL_SECONDS"):
        list(map_in_threads(lambda item: release.wait(60), range(3), 2))
    assert is_busy()
    release.set()


def test_a_cluster_or_several_workers_choose_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_engine().name == "local"
    assert choose_engine(workers=2).why == "2 workers"
    assert choose_engine("head:6379").why == "--address head:6379"
    assert choose_engine(asked="ray").name == "ray"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert choose_engine().why == "RAY_ADDRESS is set"
    assert choose_engine(asked="local").name == "local"


@pytest.mark.parametrize("given", [{"address": "head:6379"}, {"workers": 2}])
def test_the_local_engine_refuses_what_it_has_not(given: dict[str, object]) -> None:
    with pytest.raises(Refusal, match=r"expected --engine local alone, found .*--engine ray"):
        choose_engine(asked="local", **given)  # type: ignore[arg-type]


def test_threads_are_given_up_where_memory_is_short() -> None:
    demand = Demand(split=100 * 2**20)
    need = [demand.memory(threads) for threads in range(5)]
    assert plan_threads(Node(4, memory=need[4]), demand).threads == 4
    assert plan_threads(Node(4, memory=need[4] - 1), demand).threads == 3
    assert plan_threads(Node(4, memory=2 * need[4]), demand, remote=True).threads > 4
    with pytest.raises(Refusal, match=r"scoring needs .* MiB, and this process may use"):
        plan_threads(Node(4, memory=need[1] - 1), demand)


def test_memory_is_what_the_operator_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMORY, "700")
    assert find_this_node(ask_gpus=False).memory == 700 * 10**6
    monkeypatch.setenv(MEMORY, "much")
    with pytest.raises(Refusal, match="ANOMARAY_MEMORY_MB is 'much'"):
        find_this_node()
