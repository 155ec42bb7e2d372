"""`python -m models`: a detector is started in a copy of the checkout, and passes the contract."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what a detector and its tests need."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("models", "tests/models", "docs"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "tests/__init__.py"):
        shutil.copy(ROOT / file, copy / file)
    yield copy
    shutil.rmtree(copy)


def run(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m` these arguments, in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=checkout, capture_output=True, text=True
    )


@pytest.mark.thorough  # a run of pytest inside: 10 s
def test_a_new_detector_passes_the_contract_and_the_linter_from_the_start(checkout: Path) -> None:
    made = run(checkout, "models", "new", "mean_distance")
    assert made.returncode == 0, made.stderr
    written = run(checkout, "models", "list", "--write")
    assert written.returncode == 0, written.stderr
    assert (
        "| `mean_distance` | tables | a sample of rows | Adds up how far"
        in (checkout / "docs" / "detectors.md").read_text()
    )
    tests = [f"tests/models/detectors/test_{name}.py" for name in ("contract", "catalog")]
    tested = run(checkout, "pytest", "-q", *tests, "-k", "mean_distance or test_catalog")
    assert tested.returncode == 0, tested.stdout
    passed = re.search(r"(\d+) passed, \d+ deselected in", tested.stdout)
    assert passed, tested.stdout
    assert int(passed[1]) > 30
    files = [f"models/detectors/{name}.py" for name in ("mean_distance", "single")]
    for command in (["check"], ["format", "--check"]):
        linted = run(checkout, "ruff", *command, *files)
        assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("knn", "'knn' is taken: models/detectors has it"),
        ("bases", "'bases' is taken"),
        ("template", "'template' is taken"),
        ("auto", "'auto' is taken: `detector: auto` in a spec chooses a detector"),
        ("Mean-Distance", "expected a Python name in lower case, such as sliding_window, found"),
        ("class", "expected a Python name"),
        ("../knn2", "expected a Python name"),
        ("layout", "would have a class Layout, which models/detectors/template.py already imports"),
    ],
)
def test_a_name_that_a_detector_cannot_have_is_refused(
    checkout: Path, name: str, message: str
) -> None:
    files = {path: path.read_bytes() for path in (checkout / "models" / "detectors").glob("*.py")}
    refused = run(checkout, "models", "new", name)
    assert refused.returncode == 2
    assert message in refused.stderr
    assert files == {path: path.read_bytes() for path in files}
    assert len(files) == len(list((checkout / "models" / "detectors").glob("*.py")))


def test_help_needs_neither_torch_nor_ray() -> None:
    code = "import sys, models.__main__; print({'torch', 'ray'} & set(sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "set()"
    assert "models/detectors/NAME.py" in run(ROOT, "models", "new", "--help").stdout
