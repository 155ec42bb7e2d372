"""The notebooks that need no night; `tests/night/test_example.py` runs the one that does."""

from pathlib import Path

import pytest

from tests.examples import EXAMPLES, read, run


def test_a_detector_by_itself_finds_planted_incidents_without_ray() -> None:
    run(
        "a_detector_by_itself",
        "measure_auroc(found[~planted], found[planted]) > 0.9",
        "0 < (scores > threshold).sum() < len(scores) / 10",
        "'ray' not in sys.modules",
    )


def test_the_detector_of_the_notebook_finds_planted_fraud() -> None:
    scores = "mine.score(to_score)"
    run("write_your_own_detector", f"measure_auroc({scores}[~fraud], {scores}[fraud]) > 0.9")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    for cell in read(path.stem)["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
