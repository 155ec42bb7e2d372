"""Plans for nodes of one shape and of several: plain values, no Ray."""

import pytest

from cluster.runtime.nodes import Node, Request, describe_nodes
from cluster.runtime.resources import Demand, place_evenly, plan_actors, plan_readers, plan_workers
from models.refusal import Refusal

GIB = 1024**3
LAPTOP = Node(cpus=8, memory=16 * GIB)
SMALL = Node(cpus=2, memory=4 * GIB)
A100 = Node(cpus=12, gpus=1, memory=64 * GIB, gpu_memory=40 * GIB)
DGX = Node(cpus=96, gpus=8, memory=512 * GIB, gpu_memory=80 * GIB)


def test_an_actor_a_cpu_on_every_shape_of_node() -> None:
    plan = plan_actors([LAPTOP, SMALL, SMALL])
    assert (plan.actors, plan.threads, plan.cpus, plan.gpus) == (12, 1, 1.0, 0.0)
    assert plan.grows


def test_memory_bounds_the_actors_of_each_node_and_not_of_the_average() -> None:
    # 600 MiB and two decoded 512 MiB: 1.6 GiB; 16 GiB hold 8 of them but 4 GiB hold 2, of 8 CPUs.
    tight = Node(cpus=8, memory=4 * GIB)
    plan = plan_actors([LAPTOP, tight], Demand(split=512 * 1024**2))
    assert plan.actors == 8 + 2
    request = Request(plan.cpus, plan.gpus, plan.memory)
    assert [request.count_on(node) for node in (LAPTOP, tight)] == [8, 2]


def test_threads_are_given_up_before_actors_are() -> None:
    demand = Demand(split=256 * 1024**2)
    assert plan_actors([LAPTOP], demand, remote=True).threads == 2
    tight = Node(cpus=4, memory=int(4.5 * GIB))
    plan = plan_actors([tight], demand, remote=True)
    assert (plan.actors, plan.threads) == (4, 1)


def test_nodes_that_are_too_small_are_refused_with_what_they_have() -> None:
    with pytest.raises(Refusal, match=r"needs 1 CPU and 4,696 MiB.*2 nodes of 2 CPUs.*4,096 MiB"):
        plan_actors([SMALL, SMALL], Demand(split=2 * GIB))


def test_where_there_are_gpus_nodes_without_have_no_actors() -> None:
    plan = plan_actors([A100, LAPTOP])
    assert (plan.actors, plan.gpus, plan.threads) == (1, 1.0, 3)


def test_a_small_detector_shares_a_gpu_and_a_large_one_does_not() -> None:
    small, large = Demand(batch=100 * 1024**2), Demand(batch=8 * GIB)
    assert plan_actors([DGX], small).gpus == 0.25
    assert plan_actors([DGX], small).actors == 32
    assert plan_actors([DGX], large).gpus == 0.5
    assert plan_actors([A100], large).gpus == 1.0


def test_a_gpu_is_shared_only_where_every_node_has_the_memory_and_the_cpus() -> None:
    small = Demand(batch=100 * 1024**2)
    t4 = Node(cpus=4, gpus=1, memory=16 * GIB, gpu_memory=3 * GIB)
    assert plan_actors([A100, t4], small).gpus == 0.5
    few_cpus = Node(cpus=2, gpus=1, memory=16 * GIB, gpu_memory=40 * GIB)
    assert plan_actors([few_cpus], small).gpus == 0.5
    unknown = Node(cpus=12, gpus=1, memory=64 * GIB)
    assert plan_actors([unknown], small).gpus == 1.0


def test_a_share_of_a_gpu_is_one_of_a_single_gpu() -> None:
    assert Request(cpus=1, gpus=0.4).count_on(Node(cpus=8, gpus=3)) == 6


def test_workers_are_spread_and_leave_each_node_room_for_a_reader() -> None:
    plan = plan_workers([SMALL, SMALL, SMALL], workers=3)
    assert (plan.cpus, plan.torch_threads, plan.least) == (1.0, 2, 1)
    single = [Node(cpus=1)] * 3
    plan = plan_workers(single, workers=2, least=2)
    assert (plan.cpus, plan.least) == (0.5, 2)
    readers = plan_readers(single)
    assert Request(readers.cpus).count_on(Request(plan.cpus).take_from(single[0], 1)) >= 1


def test_on_one_node_the_count_of_workers_stays() -> None:
    assert plan_workers([LAPTOP], workers=4).least == 4


def test_workers_that_do_not_fit_are_refused_with_the_count_that_does() -> None:
    with pytest.raises(Refusal, match=r"9 training workers do not fit 1 node.*6 or fewer"):
        plan_workers([SMALL], workers=9)
    assert plan_workers([SMALL], workers=6).cpus == 0.25
    with pytest.raises(Refusal, match="need 9 GPUs, and the cluster has 8"):
        plan_workers([DGX], workers=9)


def test_readers_beside_gpu_workers_take_no_gpu() -> None:
    readers = plan_readers([DGX])
    assert (readers.actors, readers.gpus) == (8, 0.0)
    assert plan_workers([DGX], workers=8).gpus == 1.0


def test_what_is_spread_goes_where_the_fewest_are() -> None:
    nodes = [Node(cpus=4), Node(cpus=1), Node(cpus=2)]
    assert place_evenly(nodes, Request(1.0), 5) == [2, 1, 2]
    assert place_evenly(nodes, Request(1.0), 8) is None


def test_nodes_are_described_by_shape() -> None:
    text = describe_nodes([DGX, DGX, Node(cpus=1)])
    assert text == "2 nodes of 96 CPUs and 8 GPUs, 1 node of 1 CPU"
