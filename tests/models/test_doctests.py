"""The examples in docstrings run and print what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "models.batch",
    "models.bundle",
    "models.canonical_json",
    "models.columns",
    "models.decoding.addresses",
    "models.detectors.catalog",
    "models.detectors.search_space",
    "models.encoding.fit",
    "models.encoding.scale",
    "models.explaining.numbers",
    "models.explaining.places",
    "models.footprint",
    "models.layers.integrated_gradients",
    "models.layout",
    "models.schema",
    "models.scores.extreme_values",
    "models.scores.histogram",
    "models.scores.quality",
    "models.scores.severity",
    "models.scores.sketch",
    "models.scores.threshold",
    "models.selection.auto",
    "models.suggestion",
    "models.training.loop",
    "models.training.options",
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
