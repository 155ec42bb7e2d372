"""A Ray cluster of several nodes on one machine: each may be killed, and others may come."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cluster as _  # settles Ray's authentication before Ray is imported
from tests.faults.lake import plain_environment
from tests.faults.processes import Command, send

# How the head finds out that a node is gone. Ray's own 3 s, 10 s and 5 make it 15 s for a node that
# refuses and over a minute for one that is silent. A busy machine may be late by seconds.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}
# Small objects only: descriptors of splits, and some thousand encoded rows.
STORE_BYTES = 100 * 1024**2
# What a node says that it has; more than a few actors of a small day need.
MEMORY_BYTES = 4 * 1024**3


class Machines:
    """Nodes of one CPU each; the first is the head, which a driver joins."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self.nodes = [self.add() for _ in range(nodes)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    @property
    def environment(self) -> dict[str, str]:
        """What a driver needs to join."""
        token = {k: v for k, v in os.environ.items() if k.startswith("RAY_AUTH_")}
        return {**plain_environment(), **token}

    def add(self) -> Any:
        """A node comes."""
        return self._cluster.add_node(
            num_cpus=1,
            memory=MEMORY_BYTES,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
        )

    def command(self, folder: Path, name: str, *arguments: str, **environment: str) -> Command:
        """A driver that joins."""
        whole = {**self.environment, **environment}
        return Command((*arguments, "--address", self.address), whole, folder, name)

    def raylet(self, node: Any) -> int:
        """Process id of the node's raylet; its workers are children of it."""
        pid: int = node.all_processes["raylet"][0].process.pid
        return pid

    def kill(self, node: Any) -> None:
        """SIGKILL of the raylet: its workers end by themselves, nobody tells the head."""
        send(self.raylet(node), signal.SIGKILL)

    def workers(self, title: str) -> dict[int, list[int]]:
        """Processes with this word in their title, by the raylet that started them."""
        found: dict[int, list[int]] = {self.raylet(node): [] for node in self.nodes}
        for entry in Path("/proc").iterdir():
            try:
                if title in (entry / "cmdline").read_text(errors="replace"):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    found.get(parent, []).append(int(entry.name))
            except (OSError, ValueError):
                continue  # it ended meanwhile, or is no process
        return found

    def shutdown(self) -> None:
        self._cluster.shutdown()


@contextmanager
def machines(nodes: int = 3) -> Iterator[Machines]:
    """So many nodes until the end of the block."""
    before = {name: os.environ.get(name) for name in HEALTH}
    os.environ.update(HEALTH)
    there = Machines(nodes)
    try:
        yield there
    finally:
        there.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
