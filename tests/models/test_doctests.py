"""The examples in docstrings run and print what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "models.detectors.catalog",
    "models.detectors.search_space",
    "models.layers.integrated_gradients",
    "models.selection.auto",
    "models.selection.ranking",
    "models.suggestion",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
