"""How large the house is, and how its folders depend on each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tests.house.rooms import PACKAGES, House


@dataclass(frozen=True)
class Figures:
    """Sizes and dependencies of `models`, `cluster` and `jobs`."""

    folders: int
    files: int  # Python files, each `__init__.py` left out
    files_a_folder_median: float
    files_a_folder_largest: int
    largest_folder: str
    lines_a_file_median: float
    lines_a_file_largest: int
    largest_file: str
    arrows: int  # pairs of folders of which one imports the other
    upward_arrows: int  # imports against the layers of `pyproject.toml`
    circles: int  # sets of files that import each other, directly or through others
    product_lines: int
    test_lines: int


def measure(house: House) -> Figures:
    """Count the files and lines under the house's root, and the arrows of its imports."""
    files = [path for name in PACKAGES for path in _list_files(house.root / name)]
    lines = {path: _count_lines(path) for path in files}
    named = [path for path in files if path.name != "__init__.py"]
    folders = {path.parent: 0 for path in files}
    for path in named:
        folders[path.parent] += 1
    folder = max(folders, key=folders.__getitem__)
    file = max(named, key=lines.__getitem__)
    arrows = {
        (_find_folder(house, source), _find_folder(house, target))
        for source, targets in house.imports.items()
        for target in targets
    }
    return Figures(
        folders=len(folders),
        files=len(named),
        files_a_folder_median=median(folders.values()),
        files_a_folder_largest=folders[folder],
        largest_folder=str(folder.relative_to(house.root)),
        lines_a_file_median=median(lines[path] for path in named),
        lines_a_file_largest=lines[file],
        largest_file=str(file.relative_to(house.root)),
        arrows=sum(source != target for source, target in arrows),
        upward_arrows=sum(1 for _ in house.list_upward()),
        circles=len(find_circles(house)),
        product_lines=sum(lines.values()),
        test_lines=sum(map(_count_lines, _list_files(house.root / "tests"))),
    )


def find_circles(house: House) -> Sequence[frozenset[str]]:
    """Sets of two or more modules that import each other, directly or through others."""
    modules = sorted(house.imports)
    places = {module: place for place, module in enumerate(modules)}
    edges = [(places[s], places[t]) for s in modules for t in house.imports[s]]
    sources, targets = zip(*edges, strict=True)
    shape = (len(modules), len(modules))
    matrix = coo_array(([1] * len(edges), (sources, targets)), shape)
    count, labels = connected_components(matrix, connection="strong")
    sets = [frozenset(m for m in modules if labels[places[m]] == one) for one in range(count)]
    return [one for one in sets if len(one) > 1]


def _find_folder(house: House, module: str) -> str:
    return module if module in house.packages else module.rpartition(".")[0]


def _list_files(folder: Path) -> Sequence[Path]:
    return sorted(folder.rglob("*.py"))


def _count_lines(path: Path) -> int:
    return len(path.read_text().splitlines())
