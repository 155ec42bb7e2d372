"""The catalogue has every detector, and the pages say what it says."""

import importlib
import pkgutil
from inspect import isabstract
from pathlib import Path

import models.detectors
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.detectors.overview import update_page, update_readme
from models.detectors.template import Template

ROOT = Path(__file__).parents[3]
WRITE = "the catalogue has changed: run `python -m models list --write` and commit what it wrote"


def test_every_detector_in_the_folder_is_in_the_catalogue() -> None:
    found = set()
    for module in pkgutil.iter_modules(models.detectors.__path__, "models.detectors."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Detector) and not isabstract(value):
                found.add(value)
    missing = [
        f"from {kind.__module__} import {kind.__name__}"
        for kind in found - {*CATALOG.values(), Template}
    ]
    assert not missing, f"add to models/detectors/single.py: {'; '.join(missing)}"


def test_a_detector_has_the_name_of_its_file() -> None:
    assert all(kind.__module__ == f"models.detectors.{name}" for name, kind in CATALOG.items())


def test_the_page_of_detectors_has_the_table_of_the_catalogue() -> None:
    page = (ROOT / "docs" / "detectors.md").read_text()
    assert page == update_page(page, CATALOG), WRITE


def test_the_readme_counts_the_detectors_of_the_catalogue() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme == update_readme(readme, CATALOG), WRITE
