"""Both engines: equal flags, and a process without Ray that stops when it is asked to."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs.score import score
from jobs.spec.spec import load
from tests.night.conftest import cut_into_files, watch_at
from tests.night.test_faults import ROOT, start
from tests.night.test_score import DAY


def read_flags(output: Path) -> pa.Table:
    return DeltaTable(str(output / "flags")).to_pyarrow_table().sort_by("uid")


def test_both_engines_commit_the_same_flags_bit_for_bit(
    trained: tuple[Path, Path], tmp_path: Path, ray_session: None
) -> None:
    path = watch_at(trained, tmp_path)
    spec, output = load(path), tmp_path / "out"
    first = score(spec, DAY, engine="ray")
    on_ray = read_flags(output)
    shutil.rmtree(output)
    shutil.copytree(trained[1], output)
    second = score(spec, DAY, engine="local")
    assert second.run_id == first.run_id
    assert second.counts == first.counts
    assert read_flags(output).equals(on_ray)
    assert on_ray.num_rows > 0


_LIGHT = """
import gc, sys
usual = gc.get_threshold()
from jobs.cli.command import main
_, spec, day = sys.argv
unneeded = {"ray", "s3fs", "duckdb"}
for arguments in (["score", spec, "--day", day], ["train", spec], ["nightly", spec]):
    sys.argv[1:] = [*arguments, "--json"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
    assert not unneeded & sys.modules.keys(), arguments
    if arguments[0] == "score":  # with onnxruntime
        assert "torch" not in sys.modules
    assert gc.get_threshold() == usual and gc.get_freeze_count()
"""


def test_a_command_on_the_local_engine_imports_no_more_than_it_needs(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    path = watch_at(trained, tmp_path)
    command = [sys.executable, "-c", _LIGHT, str(path), DAY]
    kept = {name: of for name, of in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_a_stopped_run_goes_on_where_it_was(trained: tuple[Path, Path], tmp_path: Path) -> None:
    path = watch_at(trained, tmp_path)
    cut_into_files(tmp_path / "flows" / f"day={DAY}", 24)
    tasks = tmp_path / "out" / "_runs"
    for number in (signal.SIGINT, signal.SIGTERM):
        done = len(list(tasks.glob("*/tasks/*/*.json")))
        process = start("score", str(path), "--day", DAY)
        while len(list(tasks.glob("*/tasks/*/*.json"))) < done + 2:
            with pytest.raises(subprocess.TimeoutExpired):  # it has not ended yet
                process.wait(timeout=0.005)
        process.send_signal(number)
        process.communicate(timeout=60)
        assert process.returncode == 128 + number
    again = start("score", str(path), "--day", DAY, "--json")
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors.decode()
    assert "resuming run" in errors.decode()
    receipt = json.loads(output)
    assert receipt["rows"] == receipt["scored"] + receipt["quarantined"]
