"""The nodes of the Ray in use."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime.nodes import Node
from models.refusal import Refusal

# Seconds for nodes to report the memory of their GPUs. An idle worker of a node answers at once; if
# all its GPUs are in use, the answer comes when one is free.
_ANSWERED_S = 30.0
# Share of a GPU that the question reserves: too little to keep an actor out.
_GLANCE = 0.01

_log = logging.getLogger(__name__)


def list_nodes(ask_gpus: bool = False) -> tuple[Node, ...]:
    """The living nodes of the Ray in use, the largest first.

    With `ask_gpus`, each node with GPUs reports the free memory of one of them. Raises Refusal if
    it has no driver, or no torch for GPUs: Ray trusts the number that a node was started with.
    """
    living = [node for node in ray.nodes() if node["Alive"]]
    if not living:
        raise Refusal("the cluster has no living node: start one with `ray start`")
    with_gpus = [node for node in living if ask_gpus and node["Resources"].get("GPU", 0) >= 1]
    free = _read_gpu_memory(with_gpus) if with_gpus else {}
    found = [
        Node(
            cpus=float(node["Resources"].get("CPU", 0.0)),
            gpus=int(node["Resources"].get("GPU", 0)),
            memory=int(node["Resources"].get("memory", 0)),
            gpu_memory=free.get(node["NodeID"], 0),
        )
        for node in living
    ]
    return tuple(sorted(found, key=lambda node: (-node.gpus, -node.cpus, -node.memory)))


def _read_gpu_memory(asked: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Free bytes of a GPU, by the id of each node that answers."""
    look = ray.remote(num_cpus=0, num_gpus=_GLANCE, max_retries=1)(_look_at_gpu)
    answers = {
        node["NodeID"]: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in asked
    }
    ray.wait(list(answers.values()), num_returns=len(answers), timeout=_ANSWERED_S)
    free: dict[str, int] = {}
    for node in asked:
        address, answer = node["NodeManagerAddress"], answers[node["NodeID"]]
        try:
            free[node["NodeID"]], lacking = ray.get(answer, timeout=0)
        except RayError as error:  # no answer yet, or the node is gone
            ray.cancel(answer, force=True)
            _log.warning(
                "node %s does not report the memory of its GPUs (%s): each actor gets a whole GPU",
                address,
                type(error).__name__,
            )
        else:
            if lacking:
                count = int(node["Resources"]["GPU"])
                raise Refusal(
                    f"node {address} was started with {count} GPU{'s' * (count > 1)}, and has no "
                    f"{lacking}: install a driver and torch for CUDA, or start the node with "
                    "--num-gpus 0"
                )
    return free


def _look_at_gpu() -> tuple[int, str]:
    """Runs on a node: the free bytes of its GPU (0 if unknown), and what it lacks to use it."""
    from cluster.runtime.gpus import has_driver, is_torch_for_gpus, read_free_memory

    if not has_driver():
        return 0, "driver of a GPU"
    if not is_torch_for_gpus():
        return 0, "torch for GPUs"
    return min(read_free_memory(), default=0), ""
