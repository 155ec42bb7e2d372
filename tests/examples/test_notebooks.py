"""The notebooks that need no night: each runs in a process of its own, as it does for a reader."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples import EXAMPLES, read


def _run(name: str, *checks: str) -> None:
    lines = ["from tests.examples import run", f"globals().update(run({name!r}))"]
    code = "\n".join([*lines, *(f"assert {check}, {check!r}" for check in checks)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_detector_by_itself_finds_planted_incidents_without_ray() -> None:
    _run(
        "a_detector_by_itself",
        "auroc(found[~planted], found[planted]) > 0.9",
        "0 < (scores > threshold).sum() < len(scores) / 10",
        "'ray' not in sys.modules",
    )


def test_the_detector_of_the_notebook_finds_planted_fraud() -> None:
    scores = "mine.score(to_score)"
    _run("write_your_own_detector", f"auroc({scores}[~fraud], {scores}[fraud]) > 0.9")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    cells = [cell for cell in read(path.stem)["cells"] if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in cells] == [([], None)] * len(
        cells
    )
