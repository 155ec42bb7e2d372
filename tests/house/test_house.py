"""The measuring and drawing of the house, on a small house of its own."""

from pathlib import Path

import pytest

from tests.house.drawing import draw, read_uses
from tests.house.figures import find_circles, measure
from tests.house.rooms import House
from tests.house.walk import record


def _make_house(root: Path, **imports: str) -> House:
    """A house of the given modules (`__` for a dot), each importing the ones in its text."""
    named = {name.replace("__", "."): text.split() for name, text in imports.items()}
    for name in named:
        file = root / (name.replace(".", "/") + ".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(f"import {target}" for target in named[name]))
    layers = {
        "": {"jobs": 0, "cluster": 1, "models": 2},
        "jobs": {"night": 0, "spec": 1},
        "cluster": {"lake": 0},
        "models": {"detector": 0, "batch": 1, "columns": 1},
    }
    whole = {name: frozenset(targets) for name, targets in named.items()}
    return House(root, whole, frozenset({"jobs.spec", "cluster.lake"}), layers)


def test_loose_files_of_one_layer_are_one_room(tmp_path: Path) -> None:
    house = _make_house(
        tmp_path, models__batch="", models__columns="", models__detector="models.batch"
    )
    assert house.rooms["models.batch"] == house.rooms["models.columns"]
    assert [(s.name, t.name) for s, t in house.list_arrows()] == [
        ("models: detector", "models: batch · columns")
    ]


def test_an_import_against_the_layers_is_counted(tmp_path: Path) -> None:
    house = _make_house(
        tmp_path,
        jobs__night="jobs.spec.columns models.batch",
        jobs__spec__columns="jobs.night",
        models__batch="models.columns",  # along one layer
        models__columns="",
    )
    upward = [("jobs.spec.columns", "jobs.night"), ("models.batch", "models.columns")]
    assert list(house.list_upward()) == upward


def test_figures_of_a_small_house(tmp_path: Path) -> None:
    house = _make_house(
        tmp_path,
        jobs__night="jobs.spec.columns cluster.lake.table",
        jobs__spec__columns="jobs.spec.errors",
        jobs__spec__errors="jobs.spec.columns",
        cluster__lake__table="models.batch models.columns",
        models__batch="",
        models__columns="",
    )
    found = measure(house)
    assert (found.files, found.folders, found.files_a_folder_largest) == (6, 4, 2)
    assert (found.arrows, found.upward_arrows, found.circles) == (3, 0, 1)
    assert (found.product_lines, found.lines_a_file_largest) == (6, 2)
    assert find_circles(house) == [frozenset({"jobs.spec.columns", "jobs.spec.errors"})]


def test_the_picture_names_every_room_and_all_that_it_imports(tmp_path: Path) -> None:
    house = _make_house(
        tmp_path,
        jobs__night="jobs.spec.columns cluster.lake.table models.batch",
        jobs__spec__columns="models.columns",
        cluster__lake__table="models.batch",
        models__batch="",
        models__columns="",
    )
    picture = draw(house)
    assert read_uses(picture) == {
        "jobs: night": {"jobs.spec", "cluster.lake", "models: batch · columns"},
        "jobs.spec": {"models: batch · columns"},
        "cluster.lake": {"models: batch · columns"},
        "models: batch · columns": frozenset(),
    }
    assert picture == draw(house)
    # The long arrow from `night` to `batch · columns` follows from the others, and is text alone.
    assert picture.count('fill="none"') == 4


@pytest.mark.slow
def test_the_walk_of_one_split_goes_from_the_driver_to_the_worker_and_back() -> None:
    day, worker = record(Path(__file__).parents[2])
    assert day.files[0] == day.files[-1] == "jobs/score.py"
    assert "cluster/scoring/scorer.py" in worker.files
    assert set(worker.files) < set(day.files)
