"""What is said of the catalogue holds."""

from pathlib import Path

from models.detectors.catalog import CATALOG

PAGE = Path(__file__).parents[3] / "docs" / "detectors.md"


def test_the_page_of_detectors_has_a_line_for_each() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert sorted(line.split("`")[1] for line in lines) == sorted(CATALOG)
