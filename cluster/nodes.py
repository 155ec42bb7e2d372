"""The nodes that a plan is made for, as plain values: read from Ray once, tested without it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray

from models.refusal import Refusal


@dataclass(frozen=True)
class Node:
    """What one node has for actors and workers."""

    cpus: float
    gpus: int = 0
    memory: int = 0  # bytes that Ray hands out, its object store not among them
    gpu_memory: int = 0  # bytes of one GPU; 0 where nobody asked


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


def nodes() -> tuple[Node, ...]:
    """The living nodes of the Ray in use, the largest first."""
    found = [
        Node(
            cpus=float(resources.get("CPU", 0.0)),
            gpus=int(resources.get("GPU", 0)),
            memory=int(resources.get("memory", 0)),
        )
        for resources in (node["Resources"] for node in ray.nodes() if node["Alive"])
    ]
    if not found:
        raise Refusal("the cluster has no living node: start one with `ray start`")
    return tuple(sorted(found, key=lambda node: (-node.gpus, -node.cpus, -node.memory)))


def described(found: Sequence[Node]) -> str:
    """`2 nodes of 8 CPUs and 1 GPU, 1 node of 4 CPUs`."""
    shapes: dict[tuple[float, int], int] = {}
    for node in found:
        shapes[node.cpus, node.gpus] = shapes.get((node.cpus, node.gpus), 0) + 1
    return ", ".join(
        f"{count} node{'s' * (count > 1)} of {cpus:g} CPU{'s' * (cpus != 1)}"
        + (f" and {gpus} GPU{'s' * (gpus > 1)}" if gpus else "")
        for (cpus, gpus), count in shapes.items()
    )
