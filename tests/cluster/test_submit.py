"""Submitted jobs, on a real head with a token: who gets in, what comes back, what is left."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.ray_head import ROOT, RayHead, ray_head, ray_node

_LONG = ("--days", "9000", "--scale", "0.05")  # minutes of work, ended long before


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayHead]:
    folder = Path(f"/tmp/anomaray-{os.getpid()}")  # sockets' paths have 107 characters at most
    folder.mkdir(mode=0o700)
    try:
        with ray_head(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def _command(head: RayHead, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "jobs", "submit", *arguments, "--address", head.dashboard]


def _submit(head: RayHead, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(head, *arguments),
        cwd=ROOT,
        env=head.environment | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _begin(head: RayHead, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        _command(head, "--environment", "image", *arguments),
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _jobs(head: RayHead) -> list[dict[str, str]]:
    header = {"Authorization": f"Bearer {head.token}"}
    listed: list[dict[str, str]] = requests.get(
        f"{head.dashboard}/api/jobs/", headers=header, timeout=10
    ).json()
    return [job for job in listed if job["submission_id"]]


def _running(head: RayHead, files: Path) -> str:
    """The id of the job that writes to the folder, once it does."""
    deadline = time.monotonic() + 60
    while not any(files.rglob("*.parquet")):
        assert time.monotonic() < deadline, "the job does not start"
        time.sleep(0.1)  # between two looks at the condition
    return next(job["submission_id"] for job in _jobs(head) if str(files) in job["entrypoint"])


def test_a_head_lets_in_only_who_has_its_token(head: RayHead) -> None:
    assert head.status({}) == 401
    assert head.status({"Authorization": "Bearer another"}) == 403
    assert head.status({"Authorization": f"Bearer {head.token}"}) == 200


def test_a_wrong_token_is_refused_and_not_said(head: RayHead) -> None:
    ended = _submit(head, "generate", "/nowhere", RAY_AUTH_TOKEN="of-another-cluster")
    assert ended.returncode == 2
    assert "does not accept the token of the variable RAY_AUTH_TOKEN" in ended.stderr
    assert "of-another-cluster" not in ended.stdout + ended.stderr


def test_a_job_succeeds_with_its_log_and_without_a_trace_of_the_token(
    head: RayHead, tmp_path: Path
) -> None:
    folder = tmp_path / "lake; touch here"  # a shell on the head reads the command
    arguments = ("generate", str(folder), "--days", "2", "--scale", "0.01")
    ended = _submit(head, "--environment", "image", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"days"' in ended.stdout or "rows" in ended.stdout
    assert '"event": "write"' in ended.stderr
    assert any(folder.rglob("*.parquet"))
    assert head.token not in ended.stdout + ended.stderr
    assert head.token not in str(_jobs(head))
    logs = [
        path for path in (head.folder / "r").rglob("*") if path.is_file() and "logs" in path.parts
    ]
    assert len(logs) > 5
    assert not [path for path in logs if head.token.encode() in path.read_bytes()]
    assert not [pid for pid in _pids() if head.token in _arguments(pid)]


def test_a_refusal_of_the_job_is_the_exit_status_here(head: RayHead, tmp_path: Path) -> None:
    spec = tmp_path / "elsewhere.yaml"  # outside of the checkout: it travels
    spec.write_text((ROOT / "specs/demo_flows.yaml").read_text().replace("demo/", f"{tmp_path}/"))
    ended = _submit(head, "--environment", "image", "plan", str(spec), "--day", "2026-01-05")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "refused" in ended.stdout
    assert "No such file" not in ended.stdout


def test_any_exit_status_of_a_command_comes_back(head: RayHead, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from cluster.submit import Jobs, Work
jobs = Jobs(sys.argv[1])
for command in ("exit 3", "kill -9 $$"):
    work = Work("test", command, Path(sys.argv[2]), "image", {})
    job, new = jobs.submit(work)
    print(new, jobs.follow(job.id, lambda text: None).exit_status)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, head.dashboard, str(tmp_path)],
        cwd=ROOT,
        env=head.environment | {"RAY_ADDRESS": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.stdout.split() == ["True", "3", "True", "137"], ended.stderr


def test_a_killed_submitter_leaves_a_job_that_the_same_command_attaches_to_and_cancel_ends(
    head: RayHead, tmp_path: Path
) -> None:
    arguments = ("generate", str(tmp_path / "lake"), *_LONG)
    with _begin(head, *arguments) as first:
        name = _running(head, tmp_path / "lake")
        first.kill()
    with _begin(head, *arguments) as second:
        assert second.stdout is not None
        assert f"attached to {name}" in second.stdout.readline()
        other = _submit(head, "--environment", "image", "--env", "LANG", *arguments, LANG="C")
        assert (other.returncode, "other variables" in other.stderr) == (2, True)
        assert _submit(head, "--cancel", name).returncode == 0
        assert "STOPPED" in second.stdout.read()
    assert second.returncode == 143
    assert _submit(head, "--attach", name).returncode == 143
    assert len([job for job in _jobs(head) if str(tmp_path) in job["entrypoint"]]) == 1
    assert not [pid for pid in _pids() if str(tmp_path / "lake") in _arguments(pid)]


def test_one_interrupt_leaves_the_job_and_two_end_it(head: RayHead, tmp_path: Path) -> None:
    arguments = ("generate", str(tmp_path / "lake"), *_LONG)
    with _begin(head, *arguments) as first:
        name = _running(head, tmp_path / "lake")
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=60)[0]
    assert first.returncode == 130
    assert f"--attach {name}" in said
    with _begin(head, *arguments) as second:
        assert second.stdout is not None
        assert f"attached to {name}" in second.stdout.readline()
        time.sleep(1)  # it follows by then
        second.send_signal(signal.SIGINT)
        while "Ctrl-C again" not in second.stdout.readline():
            pass
        second.send_signal(signal.SIGINT)
        assert "STOPPED" in second.stdout.read()
    assert second.returncode == 130


_JOIN = """
import sys
from cluster.session import session
from jobs.__main__ import _refusals
with _refusals(), session(sys.argv[1]) as line:
    print(line)
"""


def _join(head: RayHead, address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _JOIN, address],
        cwd=ROOT,
        env=head.environment | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_a_session_joins_after_every_node_has_said_what_it_runs_on(
    head: RayHead, tmp_path: Path
) -> None:
    joined = _join(head, head.gcs)
    assert joined.returncode == 0, joined.stderr
    assert joined.stdout.startswith("joined Ray at ")
    assert joined.stdout.endswith(", 1 node\n")
    older = tmp_path / "torch-2.0.0.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.0.0\n")
    with ray_node(head, PYTHONPATH=str(tmp_path)):
        deadline = time.monotonic() + 60
        while (joined := _join(head, head.gcs)).returncode == 0:
            assert time.monotonic() < deadline, "the second node does not come up"
    assert joined.returncode == 2, joined.stderr
    assert "torch 2.0.0 instead of " in joined.stderr


def test_a_session_says_soon_why_it_cannot_join(head: RayHead) -> None:
    began = time.monotonic()
    wrong = _join(head, head.gcs, RAY_AUTH_TOKEN="of-another-cluster")
    assert (wrong.returncode, "does not accept the token" in wrong.stderr) == (2, True)
    absent = _join(head, "127.0.0.1:1")
    assert (absent.returncode, "no Ray answers at 127.0.0.1:1" in absent.stderr) == (75, True)
    dashboard = _join(head, head.dashboard)
    assert (dashboard.returncode, "jobs submit" in dashboard.stderr) == (2, True)
    assert time.monotonic() - began < 45


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
