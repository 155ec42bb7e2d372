"""The pages about the house say what is there."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.house.drawing import read_uses
from tests.house.figures import find_circles
from tests.house.rooms import House

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "examples/README.md"]
PICTURE = ROOT / "docs/house.svg"
# Names of what a reader adds or gets: they stand for many.
_EXAMPLES = {"specs/mine.yaml", "models/detectors/sliding_window.py"}
_FILE = re.compile(r"[\w./-]+\.(?:py|md|ya?ml|toml|svg|png|ipynb|lock|json|html)|[\w./-]+/")


def test_no_imports_run_in_a_circle_and_the_picture_shows_those_between_rooms() -> None:
    house = House.read(ROOT)
    rooms = {room.name for room in house.rooms.values()}
    wanted = {name: {t.name for s, t in house.list_arrows() if s.name == name} for name in rooms}
    shown = {name: set(uses) for name, uses in read_uses(PICTURE.read_text()).items()}
    assert shown == wanted, "docs/house.svg differs from the imports: run make docs"
    assert find_circles(house) == [], "files that import each other: give what both use its own"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    folder = (ROOT / page).parent
    code = [name for span in re.findall(r"`([^`\n]+)`", text) for name in _FILE.findall(span)]
    top = {path.name for path in ROOT.iterdir()}
    named = {name for name in code if name.split("/")[0] in top} - _EXAMPLES
    missing = [name for name in named if not (ROOT / name).exists()]
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    missing += [link for link in links if not (folder / link).exists()]
    assert missing == []


def test_the_tree_in_the_readme_has_the_folders_of_the_checkout() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folders = {
        str(parent)
        for file in listed.stdout.splitlines()
        for parent in Path(file).parents
        if str(parent)[0] != "."
    }
    top = {folder for folder in folders if "/" not in folder}
    below = {f for f in folders if f.split("/")[0] in ("models", "cluster", "jobs")}
    below = {f for f in below if f.count("/") == 1 or f.startswith("cluster/lake/")}
    assert set(_read_tree((ROOT / "README.md").read_text())) == top | below


def _read_tree(text: str) -> list[str]:
    """The folders of the tree in a page, each with the folders around it."""
    block = text.partition("## The tree\n\n```\n")[2].partition("```")[0]
    around: list[str] = []
    found = []
    for line in block.splitlines():
        name = line.split("/")[0]
        depth = (len(name) - len(name.lstrip())) // 2
        around = [*around[:depth], name.strip()]
        found.append("/".join(around))
    return found
