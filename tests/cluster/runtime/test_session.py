"""An embedded Ray: who reaches it, and that it is left with the process that started it."""

import ipaddress
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_GONE_S = 5.0  # Ray's agents look for their node for up to a minute when nobody ends them

# All of Ray's parts that serve metrics have begun to listen when the agent and these two have.
_LEAVES = """
import time
from cluster.runtime import session
session.start()
import psutil
import ray
ray.get(ray.remote(lambda: 1).remote())
me, serving = psutil.Process(), {}
while not all(any(part in line for line in serving) for part in ("monitor.py", "dashboard.py")):
    time.sleep(0.1)
    for process in (me, *me.children(recursive=True)):
        try:
            found = [one.laddr.ip for one in process.net_connections() if one.status == "LISTEN"]
            if found:
                serving[" ".join(process.cmdline())] = found
        except psutil.Error:
            pass  # it has just ended
assert ray.nodes()[0]["MetricsExportPort"] > 0
print(*(p.pid for p in me.children(recursive=True)))
print(*(address for found in serving.values() for address in found), flush=True)
session.leave(3)
"""


def test_an_embedded_ray_is_reached_from_its_machine_alone_and_ends_with_its_process() -> None:
    # On ports of their own, since another Ray of this machine may have those of all.
    ports = dict.fromkeys(("AUTOSCALER_METRIC_PORT", "DASHBOARD_METRIC_PORT"), "0")
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES],
        cwd=ROOT,
        env=os.environ | ports,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3, done.stderr
    pids, addresses = (line.split() for line in done.stdout.splitlines())
    assert len(addresses) > 8  # those of the processes below, and of the metrics
    assert [one for one in addresses if not _is_loopback(one)] == []
    started = [int(pid) for pid in pids]
    assert len(started) > 5  # the control store, the raylet, its agents and its workers
    deadline = time.monotonic() + _GONE_S
    while left := [pid for pid in started if _alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"


def _is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def _alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
