"""A Ray cluster of several nodes on one machine: each may be killed, and others may come."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cluster  # noqa: F401 - settles Ray's authentication before Ray is imported
from tests.faults.lake import plain_environment
from tests.faults.processes import Command, send, until

# How the head finds out that a node is gone. With Ray's own 3 s, 10 s and 5 it takes 15 s for a
# node that refuses and a minute for one that is silent. A busy machine may be late by seconds.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}
# Small objects only: descriptors of splits, and some thousand encoded rows.
STORE_BYTES = 100 * 1024**2
# What a node says that it has: more than the actors of a small day need.
MEMORY_BYTES = 4 * 1024**3


class Machines:
    """Nodes that a driver, which joins the first, is run on: the head, which nobody kills."""

    def __init__(self, nodes: int, cpus: int = 1) -> None:
        from ray.cluster_utils import Cluster

        self._cpus = cpus
        self._left: list[Any] = []  # processes of nodes that were killed
        with _environment(HEALTH):
            self._cluster = Cluster()
            self.nodes = [self._start() for _ in range(nodes)]

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def _start(self) -> Any:
        return self._cluster.add_node(
            num_cpus=self._cpus,
            memory=MEMORY_BYTES,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
        )

    def add(self) -> Any:
        """A node comes."""
        self.nodes.append(self._start())
        return self.nodes[-1]

    def restore(self, count: int) -> None:
        """So many nodes, in place of those that were killed or beside them."""
        while len(self.nodes) < count:
            self.add()

    def command(self, folder: Path, name: str, *arguments: str, **environment: str) -> Command:
        """A driver that joins: `python -m jobs …`."""
        whole = {**driver_environment(), **environment}
        return Command((*arguments, "--address", self.address), whole, folder, name)

    def kill(self, node: Any) -> None:
        """SIGKILL of the raylet: nobody tells the head."""
        import psutil  # type: ignore[import-untyped]  # Ray brings its own, once it is imported

        self.nodes.remove(node)
        self._left += psutil.Process(raylet(node)).children()
        send(raylet(node), signal.SIGKILL)

    def holding(self, title: str) -> list[Any]:
        """The nodes with a process that has this word in its title, the head first."""
        parents = {pid for pid, _ in _children(title)}
        return [node for node in self.nodes if raylet(node) in parents]

    def wait_for(self, title: str, nodes: int, driver: Command, seconds: float = 300) -> list[Any]:
        """The nodes that hold such a process, once there are so many or the driver has ended."""
        holding: list[Any] = []

        def seen() -> bool:
            holding[:] = self.holding(title)
            return driver.code is not None or len(holding) >= nodes

        until(seen, seconds, every_s=0.05)  # a look reads the title of each process
        return holding

    def shutdown(self) -> None:
        """End all nodes, and what a killed one has left: its workers end by themselves, but for one
        that was in a collective, now and then."""
        import psutil

        for process in self._left:
            with suppress(psutil.Error):  # it ended by itself
                process.kill()
        self._cluster.shutdown()


def driver_environment() -> dict[str, str]:
    """What a driver needs to join: the token, and nothing that another Ray has set."""
    token = {name: v for name, v in os.environ.items() if name.startswith("RAY_AUTH_")}
    return {**plain_environment(), **token}


def raylet(node: Any) -> int:
    """Process id of the node's raylet; its workers are its children."""
    pid: int = node.all_processes["raylet"][0].process.pid
    return pid


def is_titled(command_line: str, title: str) -> bool:
    """Whether a process has this word in its title; an actor that is still being made has none:
    nothing waits for what befalls it."""
    return title in command_line and not (title and ".__init__" in command_line)


def _children(title: str) -> Iterator[tuple[int, int]]:
    """(parent, process) of the processes with this word in their title."""
    for entry in Path("/proc").iterdir():
        try:
            if is_titled((entry / "cmdline").read_text(errors="replace"), title):
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(after_name[1]), int(entry.name)
        except (OSError, ValueError):
            continue  # it ended meanwhile, or is no process


@contextmanager
def machines(nodes: int = 3, cpus: int = 1) -> Iterator[Machines]:
    """So many nodes until the end of the block."""
    there = Machines(nodes, cpus)
    try:
        yield there
    finally:
        there.shutdown()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
