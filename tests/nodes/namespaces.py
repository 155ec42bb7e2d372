"""Nodes that are machines to each other: a network namespace each, with an address of its own.

They meet on a bridge, and share nothing but an S3 server that listens there. Taking a node's link
down cuts it off as a pulled cable would: its processes live on and hear nobody.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.processes import Command, send, until
from tests.nodes.machines import (
    HEALTH,
    MEMORY_BYTES,
    STORE_BYTES,
    driver_environment,
    is_titled,
)

# TEST-NET-2 of RFC 5737: nobody's, so that no real network is hidden.
_NETWORK = "198.51.100."
_BRIDGE = "anomaray0"
_BRIDGE_MAC = "02:00:5e:00:53:01"  # locally administered
PORT = 6379
_JOINED_S = 90.0
# All machines have this one's name, which is 127.0.0.1 in each: torch has to be told the interface.
_GLOO = {"GLOO_SOCKET_IFNAME": "eth0"}
# Nobody answers to names there: torch asks for its peers' and would wait 20 s for each.
_FILES = Path("/etc/netns")  # `ip netns exec` lays them over /etc
_RESOLVER = "nameserver 127.0.0.1\n"
_HEAD = ["--head", "--port", str(PORT), "--include-dashboard", "false"]


def missing() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if shutil.which("ip") is None:
        return "ip is not installed: apt-get install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"anomaray-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "this machine allows no network namespaces"
    _ip("netns", "delete", name)
    return None


@dataclass(frozen=True)
class Machine:
    """One node in its namespace."""

    number: int
    process: subprocess.Popen[bytes]  # of `ray start --block`

    @property
    def namespace(self) -> str:
        return f"anomaray-{self.number}"

    @property
    def address(self) -> str:
        return f"{_NETWORK}{10 + self.number}"

    @property
    def link(self) -> str:
        """The end of its cable that is on the bridge."""
        return f"anomaray-v{self.number}"


class Network:
    """Machines on a bridge; the first runs the head, and the drivers."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**driver_environment(), **_GLOO, **environment}
        self.machines: list[Machine] = []
        self._lost: list[Machine] = []

    @property
    def address(self) -> str:
        return f"{self.machines[0].address}:{PORT}"

    def add(self) -> Machine:
        """Another machine, with a Ray of one CPU, once it has joined: two that start at the same
        time take each other's names, for they share a disk."""
        number = len(self.machines) + len(self._lost)
        one = Machine(number, _nothing())
        (_FILES / one.namespace).mkdir(parents=True, exist_ok=True)
        (_FILES / one.namespace / "resolv.conf").write_text(_RESOLVER)
        _ip("netns", "add", one.namespace)
        _ip("link", "add", one.link, "type", "veth", "peer", "name", "eth0", "netns", one.namespace)
        _ip("link", "set", one.link, "master", _BRIDGE, "up")
        _ip("-n", one.namespace, "address", "add", f"{one.address}/24", "dev", "eth0")
        _ip("-n", one.namespace, "link", "set", "eth0", "up")
        _ip("-n", one.namespace, "link", "set", "lo", "up")
        # Ray asks which address leads out.
        _ip("-n", one.namespace, "route", "add", "default", "via", server_address())
        place = ["--address", self.address] if number else _HEAD
        self.machines.append(Machine(number, self._ray(one, place)))
        if not until(lambda: self.alive() >= len(self.machines), _JOINED_S):
            log = self._log(one).read_text()[-1500:]
            raise RuntimeError(f"node {number} did not join in {_JOINED_S:.0f} s:\n{log}")
        return self.machines[-1]

    def _log(self, machine: Machine) -> Path:
        return self.folder / f"ray-{machine.number}.log"

    def _ray(self, machine: Machine, place: Sequence[str]) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", *place]
        command += ["--node-ip-address", machine.address, "--num-cpus", "1"]
        command += ["--object-store-memory", str(STORE_BYTES), "--memory", str(MEMORY_BYTES)]
        command += ["--disable-usage-stats"]
        with self._log(machine).open("wb") as log:
            return subprocess.Popen(
                _within(machine, command),
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def command(self, folder: Path, name: str, *arguments: str, **environment: str) -> Command:
        """A driver on the head's machine: `python -m jobs …`."""
        whole = {**driver_environment(), **environment}
        prefix = _within(self.machines[0], [])
        return Command((*arguments, "--address", self.address), whole, folder, name, prefix)

    def cut(self, machine: Machine) -> None:
        """Nothing reaches the machine any more, nor leaves it."""
        self.machines.remove(machine)
        self._lost.append(machine)
        _ip("link", "set", machine.link, "down")

    def alive(self) -> int:
        """Nodes that the head counts as living."""
        script = (
            "import ray, cluster; ray.init(address='auto', log_to_driver=False);"
            "print('living', sum(node['Alive'] for node in ray.nodes()))"
        )
        found = subprocess.run(
            _within(self.machines[0], [sys.executable, "-c", script]),
            env={**driver_environment(), "RAY_ADDRESS": self.address},
            capture_output=True,
            text=True,
        )
        counted = [line for line in found.stdout.splitlines() if line.startswith("living ")]
        return int(counted[0].split()[1]) if counted else 0

    def processes(self, machine: Machine, title: str) -> list[int]:
        """Those of the machine that have this word in their title."""
        found = subprocess.run(
            ["ip", "netns", "pids", machine.namespace], capture_output=True, text=True
        )
        pids = []
        for pid in found.stdout.split():
            with suppress(OSError):
                if is_titled(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"), title):
                    pids.append(int(pid))
        return pids

    def holding(self, title: str) -> list[Machine]:
        """The machines with a process that has this word in its title, the head's first."""
        return [machine for machine in self.machines if self.processes(machine, title)]

    def wait_for(
        self, title: str, nodes: int, driver: Command, seconds: float = 300
    ) -> list[Machine]:
        """The machines that hold such a process, once there are so many or the driver has ended."""
        holding: list[Machine] = []

        def seen() -> bool:
            holding[:] = self.holding(title)
            return driver.code is not None or len(holding) >= nodes

        until(seen, seconds, every_s=0.05)  # a look reads the title of each process
        return holding

    def close(self) -> None:
        for machine in [*self.machines, *self._lost]:
            self._end(machine)
            _ip("link", "delete", machine.link)
            _ip("netns", "delete", machine.namespace)
            shutil.rmtree(_FILES / machine.namespace)

    def _end(self, machine: Machine) -> None:
        """Every process of the namespace."""

        def ended() -> bool:
            for pid in self.processes(machine, ""):
                send(pid, signal.SIGKILL)
            return not self.processes(machine, "")

        until(ended, 20)
        machine.process.wait(timeout=20)


@contextmanager
def bridge() -> Iterator[None]:
    """Where machines meet, and where a server at `server_address` is reached by all of them."""
    with ExitStack() as stack:
        # An address of its own: else it is the lowest of its ports', so that one that is added may
        # change it, and what machines had learned of the server leads nowhere for half a minute.
        _ip("link", "add", _BRIDGE, "address", _BRIDGE_MAC, "type", "bridge")
        stack.callback(_ip, "link", "delete", _BRIDGE)
        _ip("address", "add", f"{_NETWORK}1/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield


@contextmanager
def network(
    folder: Path, nodes: int, environment: Mapping[str, str], health: Mapping[str, str] = HEALTH
) -> Iterator[Network]:
    """So many machines on the bridge until the end of the block, each with this environment: what
    opens the lake is the nodes' own. `health` is how the head finds out that one is silent."""
    there = Network(folder, {**health, **environment})
    try:
        for _ in range(nodes):
            there.add()
        yield there
    finally:
        there.close()


def server_address() -> str:
    """Where a server has to listen to be reached by every machine."""
    return f"{_NETWORK}1"


def _within(machine: Machine, command: Sequence[str]) -> list[str]:
    return ["ip", "netns", "exec", machine.namespace, *command]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _nothing() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["true"])
