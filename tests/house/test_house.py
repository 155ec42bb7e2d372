"""The measuring and drawing of the house, on a small house of its own."""

from pathlib import Path

from tests.house.drawing import draw, uses_in
from tests.house.figures import circles, measure
from tests.house.rooms import House


def _house(root: Path, **imports: str) -> House:
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
    house = _house(tmp_path, models__batch="", models__columns="", models__detector="models.batch")
    assert house.rooms["models.batch"] == house.rooms["models.columns"]
    assert [(s.name, t.name) for s, t in house.arrows()] == [
        ("models: detector", "models: batch · columns")
    ]


def test_an_import_against_the_layers_is_counted(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        jobs__night="jobs.spec.columns models.batch",
        jobs__spec__columns="jobs.night",
        models__batch="models.columns",  # along one layer
        models__columns="",
    )
    upward = [("jobs.spec.columns", "jobs.night"), ("models.batch", "models.columns")]
    assert list(house.upward()) == upward


def test_figures_of_a_small_house(tmp_path: Path) -> None:
    house = _house(
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
    assert circles(house) == [frozenset({"jobs.spec.columns", "jobs.spec.errors"})]


def test_the_picture_names_every_room_and_all_that_it_imports(tmp_path: Path) -> None:
    house = _house(
        tmp_path,
        jobs__night="jobs.spec.columns cluster.lake.table models.batch",
        jobs__spec__columns="models.columns",
        cluster__lake__table="models.batch",
        models__batch="",
        models__columns="",
    )
    picture = draw(house)
    assert uses_in(picture) == {
        "jobs: night": {"jobs.spec", "cluster.lake", "models: batch · columns"},
        "jobs.spec": {"models: batch · columns"},
        "cluster.lake": {"models: batch · columns"},
        "models: batch · columns": frozenset(),
    }
    assert picture == draw(house)
    # The long arrow from `night` to `batch · columns` follows from the others, and is text alone.
    assert picture.count('fill="none"') == 4
