"""A command in a session of its own, with every process that it starts: found, struck, ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.runtime.private_ray import POOL_ACTOR

ROOT = Path(__file__).parents[2]
# Between two looks at a condition: much shorter than a split takes.
LOOK_S = 0.003


@dataclass(frozen=True)
class Process:
    """A living process of a session."""

    pid: int
    title: str
    resident: int  # pages


class Command:
    """One run of `python -m jobs …`; output and errors go to files in `folder`.

    `within` is a command that runs it, such as one that enters a network namespace.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        name: str,
        within: Sequence[str] = (),
    ) -> None:
        self._output, self._errors = folder / f"{name}.out", folder / f"{name}.err"
        with self._output.open("wb") as output, self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [*within, sys.executable, "-m", "jobs", *arguments],
                cwd=ROOT,
                env=dict(environment),
                start_new_session=True,
                stdout=output,
                stderr=errors,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit status, once the driver has ended."""
        return self._process.poll()

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    @property
    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    def processes(self) -> list[Process]:
        """All living processes of the session, the driver among them."""
        pids = (int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        return [found for pid in pids if (found := _member(pid, self.pid))]

    def actors(self) -> list[Process]:
        """The scorer actors."""
        return [
            p for p in self.processes() if p.title.startswith("ray::") and POOL_ACTOR in p.title
        ]

    def raylets(self) -> list[Process]:
        """Ray's own servers: the raylet and the global control store."""
        servers = ("raylet/raylet ", "gcs/gcs_server ")
        return [p for p in self.processes() if any(s in p.title for s in servers)]

    def signal(self, number: signal.Signals, but: Sequence[int] = ()) -> None:
        """Send the signal to every process of the session, again until no new one is found."""
        told: set[int] = set(but)
        while new := [p.pid for p in self.processes() if p.pid not in told]:
            for pid in new:
                send(pid, number)
                told.add(pid)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """The exit status; None where the command is still running after so many seconds."""
        try:
            return self._process.wait(timeout=max(0.1, seconds))
        except subprocess.TimeoutExpired:
            return None


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself


def until(condition: Callable[[], bool], seconds: float, every_s: float = LOOK_S) -> bool:
    """Whether the condition became true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True


def _member(pid: int, session: int) -> Process | None:
    """The process, where it lives and is of the session."""
    folder = Path(f"/proc/{pid}")
    try:
        after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        if int(after_name[3]) != session or after_name[0] in "ZX":
            return None
        title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, title, int(after_name[21]))
