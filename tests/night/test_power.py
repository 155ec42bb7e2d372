"""A night that lost its power: the same command completes it, whatever was not on the disk yet."""

import os
import subprocess
from pathlib import Path

import pytest

from jobs.score import score
from jobs.spec.spec import load
from tests.faults.power import Recorder, list_files, losses, why_not
from tests.night.conftest import cut_into_files, watch_at
from tests.night.test_engines import read_flags
from tests.night.test_faults import ROOT, command
from tests.night.test_score import DAY


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.parametrize("most", [6, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_run_that_lost_its_power_is_completed_by_the_same_command(
    most: int, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    path = watch_at(trained, tmp_path)
    cut_into_files(tmp_path / "flows" / f"day={DAY}", 3)
    recorder = Recorder(tmp_path / "out", tmp_path / "record")
    before = list_files(recorder.root)
    kept = {name: of for name, of in os.environ.items() if not name.startswith("RAY_")}
    subprocess.run(
        command("score", str(path), "--day", DAY, "--engine", "local"),
        cwd=ROOT,
        env=kept | recorder.environment(),
        capture_output=True,
        check=True,
    )
    expected, record = read_flags(recorder.root), recorder.read()
    assert expected.num_rows > 0
    lefts = [*losses(record, "names"), *losses(record, "bytes")]
    for number, left in list(enumerate(lefts))[:: max(1, len(lefts) // most)]:
        recorder.leave(left, before)
        score(load(path), DAY, engine="local")
        assert read_flags(recorder.root).equals(expected), f"after loss {number}"
