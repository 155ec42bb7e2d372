"""Nodes as plain values, so that plans are tested without Ray, and the node that this process is
on."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from cluster.runtime.gpus import has_driver
from models.refusal import Refusal

# Megabytes that this process may use for rows; by default what the machine has free.
MEMORY = "ANOMARAY_MEMORY_MB"
_GROUP = Path("/sys/fs/cgroup")


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


def find_this_node(ask_gpus: bool = True) -> Node:
    """The CPUs, GPUs and free memory that this process may use, as its control group and
    ANOMARAY_MEMORY_MB limit them. Raises Refusal if the variable is no number."""
    return Node(_count_cpus(), count_gpus() if ask_gpus else 0, _read_free_memory())


def count_gpus() -> int:
    """The GPUs that torch finds. Their memory is not asked for: that takes some of it.

    Torch is not imported where there is no driver of a GPU.
    """
    if not has_driver():
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _count_cpus() -> float:
    allowed = float(len(os.sched_getaffinity(0)))
    quota, _, period = _read_limit("cpu.max").partition(" ")
    return min(allowed, max(1.0, int(quota) // int(period))) if quota.isdigit() else allowed


def _read_free_memory() -> int:
    text = os.environ.get(MEMORY, "")
    if text:
        if not text.isdigit() or text == "0":
            raise Refusal(f"{MEMORY} is {text!r}: set it to a number of megabytes, or unset it")
        return int(text) * 10**6
    free = int(psutil.virtual_memory().available)
    most, used = _read_limit("memory.max"), _read_limit("memory.current")
    return min(free, int(most) - int(used)) if most.isdigit() and used.isdigit() else free


def _read_limit(name: str) -> str:
    """A limit of this process's control group; "" where there is none."""
    try:
        return (_GROUP / name).read_text().strip()
    except OSError:
        return ""
