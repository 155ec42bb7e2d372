"""A real head of a Ray cluster for tests: on free ports, in a folder of its own, with a token."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # of Ray
import requests

from tests.conftest import free_port

ROOT = Path(__file__).resolve().parents[3]
_UP_S = 60.0
_ELSEWHERE = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class RayHead:
    """The addresses of a running head, and what a client needs to be let in."""

    folder: Path
    token: str
    gcs: str
    dashboard: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        return _environment(self.folder)

    def status(self, header: dict[str, str]) -> int:
        """Of an HTTP request for the cluster's version."""
        request = urllib.request.Request(f"{self.dashboard}/api/version", headers=header)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def submitting(head: RayHead, *arguments: str) -> list[str]:
    """The command that submits to the head."""
    return [sys.executable, "-m", "jobs", "submit", *arguments, "--address", head.dashboard]


def submit(head: RayHead, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Submit, and wait for the end."""
    return subprocess.run(
        submitting(head, *arguments),
        cwd=ROOT,
        env=head.environment | environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


def begin(head: RayHead, *arguments: str) -> "subprocess.Popen[str]":
    """Submit, with stdout and stderr as one pipe."""
    return subprocess.Popen(
        submitting(head, "--environment", "image", *arguments),
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def jobs_of(head: RayHead) -> list[dict[str, Any]]:
    """What the cluster tells everyone who has its token of the jobs submitted to it."""
    header = {"Authorization": f"Bearer {head.token}"}
    listed: list[dict[str, Any]] = requests.get(
        f"{head.dashboard}/api/jobs/", headers=header, timeout=10
    ).json()
    return [job for job in listed if job["submission_id"]]


def logs_of(head: RayHead) -> list[Path]:
    """Every file that the head has logged to."""
    files = (head.folder / "r").rglob("*")
    return [path for path in files if path.is_file() and "logs" in path.parts]


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"  # jobs start `python`
    kept |= {"PATH": path, "HOME": str(folder), "RAY_AUTH_MODE": "token"}
    return kept | {"RAY_AUTH_TOKEN_PATH": str(folder / "token")}


def _command(folder: Path, *arguments: str) -> list[str]:
    ray = str(Path(sys.executable).with_name("ray"))
    quiet = ["--disable-usage-stats", "--block", "--object-store-memory=100000000"]
    ports = [
        f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "metrics-export-port")
    ]
    return [ray, "start", *arguments, *quiet, *ports]


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for a head: the paths of its sockets have 107 characters at most."""
    made = Path(tempfile.mkdtemp(prefix="anomaray-", dir="/tmp"))  # closed to others
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextmanager
def ray_head(folder: Path, **environment: str) -> Iterator[RayHead]:
    """A head with two CPUs and variables of its own, until the end of the block."""
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(token := secrets.token_hex(32))
    gcs, dashboard = free_port(), free_port()
    command = _command(folder, "--head", f"--port={gcs}", f"--dashboard-port={dashboard}")
    command += ["--dashboard-host=127.0.0.1", f"--ray-client-server-port={free_port()}"]
    command += ["--num-cpus=2", f"--temp-dir={folder / 'r'}"]
    with _running(command, _environment(folder) | environment) as pid:
        head = RayHead(folder, token, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", pid)
        header = {"Authorization": f"Bearer {token}"}
        deadline = time.monotonic() + _UP_S
        while True:
            with suppress(OSError):
                if head.status(header) == 200:
                    break
            assert time.monotonic() < deadline, "the head does not come up"
            time.sleep(0.1)  # between two looks at the condition
        yield head


@contextmanager
def ray_node(head: RayHead, **environment: str) -> Iterator[int]:
    """A second node, with variables of its own; its process id."""
    command = _command(head.folder, f"--address={head.gcs}", "--num-cpus=1")
    with _running(command, head.environment | environment) as pid:
        yield pid


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[int]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=quiet, stderr=quiet)
    try:
        yield process.pid
    finally:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGKILL)
        process.wait(timeout=20)
