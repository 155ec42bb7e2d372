"""An embedded Ray that is left with the process that started it."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
_GONE_S = 5.0  # Ray's agents look for their node for up to a minute when nobody ends them

_LEAVES = """
from cluster.runtime import session
session.start()
import psutil
import ray
ray.get(ray.remote(lambda: 1).remote())
print(*(p.pid for p in psutil.Process().children(recursive=True)), flush=True)
session.leave(3)
"""


def test_nothing_of_ray_outlives_a_process_that_leaves() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3, done.stderr
    started = [int(pid) for pid in done.stdout.split()]
    assert len(started) > 5  # the control store, the raylet, its agents and its workers
    deadline = time.monotonic() + _GONE_S
    while left := [pid for pid in started if _alive(pid)]:
        assert time.monotonic() < deadline, f"still there: {left}"


def _alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
