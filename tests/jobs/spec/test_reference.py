"""docs/spec.md and the JSON Schema describe the spec as the models check it."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from jobs.spec.columns import ROLES, Role
from jobs.spec.reference import (
    PAGE,
    ROOT,
    SCHEMA,
    build_schema,
    render_page,
    render_schema,
    schema_line,
)
from jobs.spec.source import read

SPECS = sorted((ROOT / "specs").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def document(path: Path) -> Any:
    """As JSON has it: the schema knows no tuples."""
    return json.loads(json.dumps(read(path)[0]))


def test_the_page_and_the_schema_are_up_to_date() -> None:
    assert PAGE.read_text() == render_page(), "docs/spec.md is stale: run make docs"
    assert SCHEMA.read_text() == render_schema(), "docs/spec.schema.json is stale: run make docs"


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_schema_accepts_the_specs_of_the_repository(
    validator: jsonschema.Draft202012Validator, path: Path
) -> None:
    validator.validate(document(path))
    assert path.read_text().splitlines()[0] == schema_line(path)


@pytest.mark.parametrize(
    "change",
    [
        {"detectr": "knn"},
        {"detector": "knm"},
        {"detector": {"name": "knn", "neighbors": 5}},
        {"columns": {"a": {"role": "numrc"}}},
        {"columns": {"a": {"role": "numeric", "log1": True}}},
        {"training": {"epoch": 3}},
        {"training": {"epochs": 0}},
        {"training": {"baselines": ["pcaa"]}},
        {"threshold": {"policy": "quantile", "flags": 3}},
        {"history": [{"entity": "a", "horizon": "1d"}]},
        {"alerts": [{"webhook": "A", "when": ["commited"]}]},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_a_wrong_key_or_value(
    validator: jsonschema.Draft202012Validator, change: dict[str, Any]
) -> None:
    assert not validator.is_valid(document(SPECS[0]) | change)


@pytest.mark.parametrize(
    "change",
    [
        {"detector": "auto"},
        {"detector": {"name": "knn", "neighbours": 5}},
        {"detector": "my_pkg.sliding"},
        {"detector": {"name": "my_pkg.module:Sliding", "of_its_own": 5}},
        {"training": {"baselines": ["pca", "my_pkg.module:Sliding"]}},
        {"columns": {"a": {"role": ["id", "numeric"], "range": [0, None]}}},
        {"threshold": {"policy": "budget", "flags": 3}},
        {"window": {"entity": "a", "length": 8}},
        {"alerts": [{"webhook": "A", "when": ["committed"]}]},
    ],
    ids=json.dumps,
)
def test_the_schema_accepts_every_way_to_write_a_section(
    validator: jsonschema.Draft202012Validator, change: dict[str, Any]
) -> None:
    validator.validate(document(SPECS[0]) | change)


def test_every_role_and_every_key_has_a_description() -> None:
    assert set(ROLES) == set(get_args(Role.__value__))
    schema = build_schema()
    for name, section in [("spec", schema), *schema["$defs"].items()]:
        for key, value in section.get("properties", {}).items():
            assert "description" in value or "$ref" in value or "const" in value, (name, key)
        assert "description" in section or "enum" in section, name
