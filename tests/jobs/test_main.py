"""The command line as a program: what it says, and the status that it ends with."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.core

from jobs.cli.app import app
from jobs.cli.command import report_errors
from tests.conftest import S3Server

ROOT = Path(__file__).parents[2]
SPEC = """
name: flows
input: {uri: s3://nobody/flows, partition: day}
columns: {uid: {role: id}, amount: {role: numeric}}
detector: {name: autoencoder}
threshold: {policy: quantile, contamination: 0.01}
output: {uri: s3://nobody/out}
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


GROUP = typer.main.get_command(app)
assert isinstance(GROUP, typer.core.TyperGroup)
VERBS = GROUP.commands


@pytest.mark.parametrize("name", sorted(VERBS))
def test_the_help_of_a_verb_has_examples_that_parse_and_describes_every_option(name: str) -> None:
    verb = VERBS[name]
    assert verb.help
    assert verb.epilog
    *examples, status = verb.epilog.split("\n\n")
    assert status.startswith("[bold]Exit status:[/] 0 success;")
    assert examples
    for example in examples:
        program, arguments = example.split(f" -m jobs {name} ")
        assert program == "[bold]Example:[/] python"
        verb.make_context(name, shlex.split(arguments)).close()
    for option in verb.params:
        assert getattr(option, "help", None), option.name


def test_a_store_that_does_not_answer_is_one_message_and_a_temporary_failure(
    tmp_path: Path,
) -> None:
    spec = tmp_path / "flows.yaml"
    spec.write_text(SPEC)
    environment = S3Server("http://127.0.0.1:1").environment
    ended = run("plan", str(spec), "--day", "2026-01-05", **environment)
    assert (ended.returncode, ended.stdout) == (75, "")
    assert "s3://nobody" in ended.stderr
    assert "Could not connect to the endpoint URL" in ended.stderr
    assert "Run the same command to resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    traced = run("plan", str(spec), "--day", "2026-01-05", ANOMARAY_TRACE="1", **environment)
    assert (traced.returncode, "Traceback" in traced.stderr) == (1, True)


def test_a_refusal_is_one_message_and_status_2(tmp_path: Path) -> None:
    ended = run("plan", str(tmp_path / "none.yaml"), "--day", "2026-01-05")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "none.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("asked", "mode"),
    [({}, 0o600), ({"ANOMARAY_UMASK": "027"}, 0o640), ({"ANOMARAY_UMASK": "x"}, 0)],
)
def test_what_a_verb_writes_on_a_local_disk_is_for_its_owner(
    tmp_path: Path, asked: dict[str, str], mode: int
) -> None:
    program = """
import sys
from jobs.cli import command
from jobs.cli.app import app
from cluster.lake.storage.opening import open_store

@app.command()
def write(folder: str) -> None:
    open_store(folder).put("flags/a", b"")

command.main()
"""
    command = [sys.executable, "-c", program, "write", str(tmp_path / "out")]
    environment = {**os.environ, **asked}
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, umask=0o022
    )
    if not mode:
        assert ended.returncode == 2
        assert "ANOMARAY_UMASK: expected an octal number such as 027, found 'x'" in ended.stderr
        return
    assert ended.returncode == 0, ended.stderr
    written = tmp_path / "out" / "flags" / "a"
    assert written.stat().st_mode & 0o777 == mode
    assert written.parent.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("shown", ["", "1"])
def test_a_fault_of_ours_is_one_line_and_its_trace_holds_no_value(
    tmp_path: Path, shown: str
) -> None:
    program = """
import sys
from jobs.cli import command
from jobs.cli.app import app
import pyarrow as pa

@app.command()
def broken() -> None:
    try:
        pa.array(["4000123412345678"]).cast(pa.int8())
    except pa.ArrowInvalid as error:
        raise RuntimeError("4000123412345678") from error

command.main()
"""
    command = [sys.executable, "-c", program, "broken"]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "ANOMARAY_TRACE": shown}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("failed: RuntimeError. This is a fault of Anomaray: report it with")
    kept = list(tmp_path.glob("*.trace"))
    if shown:
        assert kept == []
        trace = "\n".join(rest)
    else:
        assert rest == []
        assert str(kept[0]) in first
        assert kept[0].stat().st_mode & 0o777 == 0o600
        trace = kept[0].read_text()
    assert "in broken" in trace
    assert "before that:" in trace
    assert "ArrowInvalid" in trace
    assert "4000123412345678" not in trace.replace('"4000123412345678"', "") + first


@pytest.mark.parametrize(
    "program", [("jobs", "score", "x.yaml"), ("jobs.submitted", "score"), ("models", "list")]
)
def test_a_python_without_the_packages_is_told_where_they_are(program: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _BARE, str(ROOT), *program],
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert re.match(r"refused: expected the packages of Anomaray, found no '\w+' in Python", line)
    assert "`make .venv/.done`" in line
    assert ".venv/bin/python" in line


# As `python -m PROGRAM` in the checkout, without a site and without what the environment names.
_BARE = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
program = sys.argv[2]
sys.argv[1:3] = []
runpy.run_module(program, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ModuleNotFoundError("No module named 'deltalake'", name="deltalake"), 2),
        (ModuleNotFoundError("No module named 'jobs.scor'", name="jobs.scor"), 1),
        (ConnectionError("no answer"), 75),
        (TimeoutError("no answer"), 75),
        (OSError(errno.ESTALE, "Stale file handle"), 75),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "lake/x"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "lake/x"), 2),
        (ValueError("a fault"), 1),
    ],
)
def test_only_what_may_recover_asks_for_another_try(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, report_errors():
        raise error
    assert ended.value.code == status
    told = capsys.readouterr().err
    assert ("to resume" in told) == (status == 75)
    assert "Traceback" not in told


def test_a_program_that_reads_json_does_not_read_what_ray_prints_of_its_nodes() -> None:
    """Ray tells drivers of a dead node through this channel, and prints it on stdout."""
    program = """
import sys
sys.argv.append("--json")
from jobs.cli import command
from jobs.cli import options
from jobs.cli.app import app
from cluster.runtime.session import session
import ray
from ray._private.utils import publish_error_to_driver

@app.command()
def told(as_json: options.Json = False) -> None:
    with session("local", cpus=1):
        asked = ray._private.worker.global_worker.gcs_client
        publish_error_to_driver("node_died", "a node was marked dead", asked)
        sys.stdin.readline()  # until the line has come
    options.print_document({"told": as_json})

command.main()
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program, "told"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stderr is not None
        said = next((line for line in process.stderr if "a node was marked dead" in line), None)
        output, errors = process.communicate("\n", timeout=120)
    assert said is not None, errors
    assert process.returncode == 0, errors
    assert json.loads(output) == {"told": True}
