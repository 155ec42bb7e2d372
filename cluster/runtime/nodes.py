"""The nodes that a plan is made for, as plain values: read from Ray once, tested without it."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from models.refusal import Refusal

# Seconds for nodes to say what memory their GPUs have: a process, torch and CUDA's context take
# about 10 s. Where all GPUs of a node are taken, the answer comes when one is free.
_ANSWERED_S = 30.0
# Of a GPU, what the question reserves: nothing that an actor would miss.
_GLANCE = 0.01

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Node:
    """What one node has for actors and workers."""

    cpus: float
    gpus: int = 0
    memory: int = 0  # bytes that Ray hands out, its object store not among them
    gpu_memory: int = 0  # free bytes of one GPU; 0 where nobody asked, or it did not answer


@dataclass(frozen=True)
class Request:
    """What Ray reserves on a node for one actor or worker."""

    cpus: float
    gpus: float = 0.0
    memory: int = 0  # bytes; 0 reserves none

    def fits(self, node: Node) -> int:
        """How many of them the node holds."""
        shares = [
            (node.cpus, self.cpus),
            (node.gpus, self.gpus),
            (node.memory, self.memory),
        ]
        # A share of a GPU is one of a single GPU: three of 0.4 do not fit one and a half.
        if 0 < self.gpus < 1:
            shares[1] = (node.gpus * int(1 / self.gpus + 1e-9), 1)
        return min(int(have / need + 1e-9) for have, need in shares if need)

    def left(self, node: Node, count: int) -> Node:
        """The node when it holds so many."""
        return replace(
            node,
            cpus=node.cpus - count * self.cpus,
            memory=node.memory - count * self.memory,
            gpus=node.gpus - math.ceil(count * self.gpus - 1e-9),
        )


def list_nodes(ask_gpus: bool = False) -> tuple[Node, ...]:
    """The living nodes of the Ray in use, the largest first.

    With `ask_gpus`, torch on each node with GPUs is asked for the free memory of one of them.
    Refused where it finds no GPU: Ray believes what a node was started with.
    """
    living = [node for node in ray.nodes() if node["Alive"]]
    if not living:
        raise Refusal("the cluster has no living node: start one with `ray start`")
    with_gpus = [node for node in living if ask_gpus and node["Resources"].get("GPU", 0) >= 1]
    free = _free_gpu_memory(with_gpus) if with_gpus else {}
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


def _free_gpu_memory(asked: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes by the id of each node that answered."""
    look = ray.remote(num_cpus=0, num_gpus=_GLANCE, max_retries=1)(_look)
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
        except RayError as error:  # none yet, or the node went
            ray.cancel(answer, force=True)
            _log.warning(
                "node %s does not say what memory its GPUs have (%s): each actor gets a whole one",
                address,
                type(error).__name__,
            )
        else:
            if free[node["NodeID"]] == 0:
                count = int(node["Resources"]["GPU"])
                raise Refusal(
                    f"node {address} was started with {count} GPU{'s' * (count > 1)}, and torch "
                    f"{torch} finds none there: give it a driver and a torch for CUDA, or start it "
                    "with --num-gpus 0"
                )
    return free


def _look() -> tuple[int, str]:
    """On a node: free bytes of the GPU that Ray hands out, 0 without one; and torch's version."""
    import torch

    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return free, str(torch.__version__)


def describe_nodes(found: Sequence[Node]) -> str:
    """`2 nodes of 8 CPUs and 1 GPU, 1 node of 4 CPUs`."""
    shapes: dict[tuple[float, int], int] = {}
    for node in found:
        shapes[node.cpus, node.gpus] = shapes.get((node.cpus, node.gpus), 0) + 1
    return ", ".join(
        f"{count} node{'s' * (count > 1)} of {cpus:g} CPU{'s' * (cpus != 1)}"
        + (f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
        for (cpus, gpus), count in shapes.items()
    )
