"""What a command costs: wall seconds, CPU seconds and peak private memory of its process tree.

    python -m tests.bench.measure --result cost.json -- COMMAND …

runs the command in a session of its own and writes what it cost. Orphans of the tree (Ray's
daemons leave their parents) come back to this process, which makes itself their subreaper
(prctl(2), PR_SET_CHILD_SUBREAPER); it waits for them, and ends those that stay.

CPU seconds are the larger of two counts, since each misses something. getrusage(RUSAGE_CHILDREN)
is exact for every process that was waited for, but Ray's raylet ignores SIGCHLD, and the kernel
then drops the times of its workers. The times of all processes seen in the tree, sampled from
/proc every quarter of a second, miss at most the last quarter of a second of each.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
_SAMPLE_S = 0.25
_PR_SET_CHILD_SUBREAPER = 36
# Ray's daemons end about a second after their driver; what is there after this is killed.
_LINGER_S = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a command cost, with all its descendants."""

    status: int  # exit status; negative: ended by that signal
    wall_seconds: float  # until the command itself ended
    cpu_seconds: float  # user and system
    peak_private_bytes: int


@dataclass(frozen=True)
class Ended:
    """A command that ended: its cost and what it printed."""

    cost: Cost
    output: str
    errors: str


def tree(pid: int) -> set[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found, todo = {pid}, [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def private_bytes(pids: set[int]) -> int:
    """Memory that only these processes use: shared pages of libraries and the object store are
    not counted."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if "Private" in line)
    return total * 1024


def run(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Ended:
    """Run a command from the checkout's root, measured by a process of its own."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "cost.json"
        measurer = [sys.executable, "-m", "tests.bench.measure", "--result", str(result)]
        if timeout is not None:
            measurer += ["--timeout", str(timeout)]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [*measurer, "--", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        )
        if not result.exists():
            raise RuntimeError(f"{' '.join(command)} could not be measured:\n{done.stderr}")
        return Ended(Cost(**json.loads(result.read_text())), done.stdout, done.stderr)


class _Watch:
    """Samples the descendants of this process until it is told to stop."""

    def __init__(self) -> None:
        self.peak = 0
        self._ticks: dict[tuple[int, str], int] = {}  # by process id and start time
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._thread.join()

    @property
    def cpu_seconds(self) -> float:
        return sum(self._ticks.values()) / _TICKS

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            pids = descendants()
            self.peak = max(self.peak, private_bytes(pids))
            for pid in pids:
                if stat := _stat(pid):
                    # fields 14, 15 and 22 of proc(5): user and system ticks, start time
                    self._ticks[pid, stat[19]] = int(stat[11]) + int(stat[12])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; none for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def descendants() -> set[int]:
    return tree(os.getpid()) - {os.getpid()}


def measure(command: Sequence[str], timeout: float | None = None) -> Cost:
    """Run the command with this process's own streams; its cost once its whole tree is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    watch = _Watch()
    started = time.monotonic()
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired:
        _kill_descendants()
        status = process.wait()
    except BaseException:  # stopped by hand: the session of the command did not hear of it
        _kill_descendants()
        watch.stop()
        raise
    wall = time.monotonic() - started
    _await_orphans()
    watch.stop()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = max(used.ru_utime + used.ru_stime, watch.cpu_seconds)
    return Cost(status, round(wall, 3), round(cpu, 2), watch.peak)


def _await_orphans() -> None:
    deadline = time.monotonic() + _LINGER_S
    while _reap():
        if time.monotonic() > deadline:
            _kill_descendants()
        time.sleep(0.02)  # between two looks at the condition


def _reap() -> bool:
    """Collect children that ended; whether any are left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _kill_descendants() -> None:
    for pid in descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a command and write down what it cost.")
    parser.add_argument("--result", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--timeout", type=float, help="seconds after which its tree is killed")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    given.result.write_text(json.dumps(asdict(measure(given.command, given.timeout))))


if __name__ == "__main__":
    main()
