"""Submitted jobs, on a real head with a token: who gets in, what comes back, what is left."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.runtime.ray_head import (
    ROOT,
    RayHead,
    begin,
    jobs_of,
    logs_of,
    ray_head,
    ray_node,
    short_folder,
    submit,
)
from tests.cluster.runtime.relay import Relay

_LONG = ("--days", "9000", "--scale", "0.05")  # minutes of work, ended long before


def _running(head: RayHead, files: Path) -> str:
    """The id of the job that writes to the folder, once it does."""
    deadline = time.monotonic() + 60
    while not any(files.rglob("*.parquet")):
        assert time.monotonic() < deadline, "the job does not start"
        time.sleep(0.1)  # between two looks at the condition
    return next(
        str(job["submission_id"]) for job in jobs_of(head) if str(files) in job["entrypoint"]
    )


def test_a_head_lets_in_only_who_has_its_token(head: RayHead) -> None:
    assert head.status({}) == 401
    assert head.status({"Authorization": "Bearer another"}) == 403
    assert head.status({"Authorization": f"Bearer {head.token}"}) == 200


def test_a_wrong_token_is_refused_and_not_said(head: RayHead) -> None:
    ended = submit(head, "generate", "/nowhere", RAY_AUTH_TOKEN="of-another-cluster")
    assert ended.returncode == 2
    assert "does not accept the token of the variable RAY_AUTH_TOKEN" in ended.stderr
    assert "of-another-cluster" not in ended.stdout + ended.stderr


def test_a_job_succeeds_with_its_log_and_without_a_trace_of_the_token(
    head: RayHead, tmp_path: Path
) -> None:
    folder = tmp_path / "lake; touch here"  # a shell on the head reads the command
    arguments = ("generate", str(folder), "--days", "2", "--scale", "0.01")
    ended = submit(head, "--environment", "image", *arguments)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"days"' in ended.stdout or "rows" in ended.stdout
    assert '"event": "write"' in ended.stderr
    assert any(folder.rglob("*.parquet"))
    assert head.token not in ended.stdout + ended.stderr
    assert head.token not in str(jobs_of(head))
    logs = logs_of(head)
    assert len(logs) > 5
    assert not [path for path in logs if head.token.encode() in path.read_bytes()]
    assert not [pid for pid in _pids() if head.token in _arguments(pid)]


def test_a_refusal_of_the_job_is_the_exit_status_here(head: RayHead, tmp_path: Path) -> None:
    spec = tmp_path / "elsewhere.yaml"  # outside of the checkout: it travels
    spec.write_text((ROOT / "specs/demo_flows.yaml").read_text().replace("demo/", f"{tmp_path}/"))
    ended = submit(head, "--environment", "image", "plan", str(spec), "--day", "2026-01-05")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "refused" in ended.stderr
    assert "No such file" not in ended.stderr


def test_a_node_without_the_package_of_a_detector_is_named_before_any_work(
    head: RayHead, tmp_path: Path
) -> None:
    script = """
import sys
from cluster.runtime.session import session
from models.refusal import Refusal
try:
    with session(sys.argv[1]) as line:
        print(line)
except Refusal as refusal:
    print(refusal)
"""
    (tmp_path / "apart.py").touch()

    def join(allowed: str) -> str:
        path = os.pathsep.join([str(ROOT), str(tmp_path)])
        ended = subprocess.run(
            [sys.executable, "-c", script, head.gcs],
            cwd=tmp_path,
            env=head.environment | {"PYTHONPATH": path, "ANOMARAY_DETECTORS": allowed},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "joined Ray" in join("yaml")  # the node knows that it may look for it
    refused = join("yaml, apart")
    assert "detector packages PyYAML " in refused
    assert re.search(r"instead of PyYAML \S+, apart files \w+ on \d", refused), refused


def test_any_exit_status_of_a_command_comes_back(head: RayHead, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from cluster.runtime.job_client import JobClient, Submission
jobs = JobClient(sys.argv[1])
for command in ("exit 3", "kill -9 $$"):
    work = Submission("test", command, Path(sys.argv[2]), "image", {})
    job, new = jobs.submit(work)
    print(new, jobs.follow(job.id, lambda text: None, print).exit_status)
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
    with begin(head, *arguments) as first:
        name = _running(head, tmp_path / "lake")
        first.kill()
    with begin(head, *arguments) as second:
        assert second.stdout is not None
        assert f"attached to {name}" in second.stdout.readline()
        other = submit(head, "--environment", "image", "--env", "LANG", *arguments, LANG="C")
        assert (other.returncode, "other variables" in other.stderr) == (2, True)
        assert submit(head, "--cancel", name).returncode == 0
        assert "STOPPED" in second.stdout.read()
    assert second.returncode == 143
    assert submit(head, "--attach", name).returncode == 143
    assert len([job for job in jobs_of(head) if str(tmp_path) in job["entrypoint"]]) == 1
    assert not [pid for pid in _pids() if str(tmp_path / "lake") in _arguments(pid)]


def test_one_interrupt_leaves_the_job_and_two_end_it(head: RayHead, tmp_path: Path) -> None:
    arguments = ("generate", str(tmp_path / "lake"), *_LONG)
    with begin(head, *arguments) as first:
        assert first.stdout is not None
        name = re.search(r"submitted (\S+)", first.stdout.readline())[1]  # type: ignore[index]
        first.send_signal(signal.SIGINT)
        said = first.communicate(timeout=60)[0]
    assert first.returncode == 130
    assert f"--attach {name}" in said
    with begin(head, *arguments) as second:
        assert second.stdout is not None
        assert f"attached to {name}" in second.stdout.readline()
        second.send_signal(signal.SIGINT)
        _until(second, "Ctrl-C again")
        second.send_signal(signal.SIGINT)
        assert "STOPPED" in second.stdout.read()
    assert second.returncode == 130


_FOLLOW = """
import sys
from cluster.runtime.job_client import JobClient, Submission
from jobs.cli.command import report_errors
from pathlib import Path
def write(text):
    print(text, end="", flush=True)
def tell(text):
    print("TOLD", text, flush=True)
with report_errors():
    jobs = JobClient(sys.argv[1])
    command = "for n in $(seq 40); do echo line $n; sleep 0.5; done"
    job, _ = jobs.submit(Submission("test", command, Path(sys.argv[2]), "image", {}))
    print(jobs.follow(job.id, write, tell, gone_s=3).exit_status)
"""


def _following(head: RayHead, address: str, folder: Path) -> "subprocess.Popen[str]":
    """A job of twenty seconds, followed at this address: 40 lines and its exit status."""
    return subprocess.Popen(
        [sys.executable, "-c", _FOLLOW, address, str(folder)],
        cwd=ROOT,
        env=head.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _until(process: "subprocess.Popen[str]", text: str) -> str:
    """What the process has written, up to and with the line that holds the text."""
    assert process.stdout is not None
    said = ""
    while text not in said:
        line = process.stdout.readline()
        assert line, f"ended before it said {text!r}: {said}"
        said += line
    return said


def test_a_job_is_followed_over_a_break_and_given_up_when_its_head_stays_away(
    head: RayHead, tmp_path: Path
) -> None:
    with (
        Relay(int(head.dashboard.rpartition(":")[2])) as relay,
        _following(head, f"http://127.0.0.1:{relay.port}", tmp_path) as followed,
    ):
        said = _until(followed, "line 5\n")
        relay.cut()
        said += _until(followed, "retrying for 3 s")
        relay.mend()
        said += _until(followed, "line 12\n")
        written = [line for line in said.splitlines() if line.startswith("line")]
        assert written == [f"line {n}" for n in range(1, 13)]
        assert said.count("TOLD") == 2  # that it is gone, and that it answers again
        relay.cut()
        began = time.monotonic()
        _, errors = followed.communicate(timeout=60)
        assert 2 < time.monotonic() - began < 12
    assert followed.returncode == 75
    assert "may still run" in errors
    assert "Run the same command to resume" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_a_killed_head_is_given_up_in_bounded_time_with_a_way_to_go_on(tmp_path: Path) -> None:
    with (
        short_folder() as folder,
        ray_head(folder) as head,
        _following(head, head.dashboard, tmp_path) as followed,
    ):
        _until(followed, "line 5\n")
        os.kill(head.pid, signal.SIGKILL)
        began = time.monotonic()
        _, errors = followed.communicate(timeout=120)
        assert time.monotonic() - began < 60
    assert followed.returncode == 75
    assert "may still run" in errors
    assert "Traceback" not in errors


_SHOW = r"""
from jobs.remote.remote_verb import _LogView
with _LogView() as shown:
    shown.take('{"event": "score", "done": 1, "of": 2}\nan \x1b[31mugly\x1b[0m line\n\x1e{"rows')
    shown.take('": "' + "7" * 9000 + '"}\n')
"""


@pytest.mark.parametrize("terminal", [True, False])
def test_results_alone_are_on_stdout_and_what_a_terminal_obeys_is_nowhere(terminal: bool) -> None:
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _SHOW], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    output, _ = process.communicate(timeout=60)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert process.returncode == 0
    assert output == '{"rows": "' + "7" * 9000 + '"}\n'
    assert r"an \x1b[31mugly" in seen
    assert "\x1b[31m" not in seen
    assert ('"event"' in seen) is not terminal


_JOIN = """
import sys
from cluster.runtime.session import session
from jobs.cli.command import report_errors
with report_errors(), session(sys.argv[1]) as line:
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
    assert (dashboard.returncode, "submit VERB" in dashboard.stderr) == (2, True)
    assert time.monotonic() - began < 45


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
