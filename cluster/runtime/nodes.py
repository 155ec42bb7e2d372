"""The nodes of a cluster as plain values, so that plans are tested without Ray."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models.refusal import Refusal

# Seconds for nodes to report the memory of their GPUs. Starting a process, torch and CUDA takes
# about 10 s; if all GPUs of a node are in use, the answer comes when one is free.
_ANSWERED_S = 30.0
# Share of a GPU that the question reserves: too little to keep an actor out.
_GLANCE = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """The resources of one node."""

    cpus: float
    gpus: int = 0
    memory: int = 0  # bytes that Ray assigns, without its object store
    gpu_memory: int = 0  # free bytes of one GPU; 0 if unknown


@dataclass(frozen=True)
class Request:
    """The resources that Ray reserves for one actor or worker."""

    cpus: float
    gpus: float = 0.0
    memory: int = 0  # bytes; 0 for none

    def count_on(self, node: Node) -> int:
        """Number of actors that fit on the node."""
        shares = [
            (node.cpus, self.cpus),
            (node.gpus, self.gpus),
            (node.memory, self.memory),
        ]
        # A share is of a single GPU: three of 0.4 do not fit 1.5 GPUs.
        if 0 < self.gpus < 1:
            shares[1] = (node.gpus * int(1 / self.gpus + 1e-9), 1)
        return min(int(have / need + 1e-9) for have, need in shares if need)

    def take_from(self, node: Node, count: int) -> Node:
        """The node with the resources that `count` actors leave."""
        return replace(
            node,
            cpus=node.cpus - count * self.cpus,
            memory=node.memory - count * self.memory,
            gpus=node.gpus - math.ceil(count * self.gpus - 1e-9),
        )


def list_nodes(ask_gpus: bool = False) -> tuple[Node, ...]:
    """The living nodes of the Ray in use, the largest first.

    With `ask_gpus`, each node with GPUs reports the free memory of one of them. Raises Refusal if
    its torch finds no GPU, since Ray trusts the number that a node was started with.
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
            free[node["NodeID"]], torch = ray.get(answer, timeout=0)
        except RayError as error:  # no answer yet, or the node is gone
            ray.cancel(answer, force=True)
            _log.warning(
                "node %s does not report the memory of its GPUs (%s): each actor gets a whole GPU",
                address,
                type(error).__name__,
            )
        else:
            if free[node["NodeID"]] == 0:
                count = int(node["Resources"]["GPU"])
                raise Refusal(
                    f"node {address} was started with {count} GPU{'s' * (count > 1)}, and torch "
                    f"{torch} finds none there: install a driver and torch for CUDA, or start the "
                    "node with --num-gpus 0"
                )
    return free


def _look_at_gpu() -> tuple[int, str]:
    """Runs on a node: the free bytes of its GPU (0 without one), and the version of torch."""
    import torch

    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return free, str(torch.__version__)


def describe_nodes(found: Sequence[Node]) -> str:
    """A text for messages.

    >>> describe_nodes([Node(8, 1), Node(8, 1), Node(4)])
    '2 nodes of 8 CPUs and 1 GPU, 1 node of 4 CPUs'
    """
    shapes: dict[tuple[float, int], int] = {}
    for node in found:
        shapes[node.cpus, node.gpus] = shapes.get((node.cpus, node.gpus), 0) + 1
    return ", ".join(
        f"{count} node{'s' * (count > 1)} of {cpus:g} CPU{'s' * (cpus != 1)}"
        + (f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
        for (cpus, gpus), count in shapes.items()
    )
