"""The schemas of KubeRay's kinds, as strict as the API server with strict field validation.

A CRD's schema is OpenAPI's dialect: an unknown field is pruned, or refused by
`kubectl apply --validate=strict`; here it is an error.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

FOLDER = Path(__file__).parents[3] / "shared/schemas"


@cache
def _read(kind: str) -> Any:
    path = FOLDER / f"{kind}.json"
    if not path.exists():
        pytest.skip(f"the schema of KubeRay's {kind} is not at {path}")
    return json.loads(path.read_text())["openAPIV3Schema"]


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_strict(_read(kind)))


def errors(manifest: dict[str, Any]) -> list[str]:
    """What the API server would say against it: the field and why."""
    found = _validator(manifest["kind"]).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in found]


def broken_rules(manifest: dict[str, Any]) -> tuple[int, list[str]]:
    """How many rules of its kind speak of the manifest, and those that it breaks.

    These are the `x-kubernetes-validations` of the schema, in CEL. One that compares with an
    earlier state (`oldSelf`) says nothing of a new object.
    """
    cel = pytest.importorskip("cel", reason="common-expression-language is not installed")
    asked, broken = 0, []
    for where, value, rule in _rules(_read(manifest["kind"]), manifest, "$"):
        asked += 1
        if cel.evaluate(rule, {"self": value}) is not True:
            broken.append(f"{where}: {rule}")
    return asked, broken


def _rules(schema: Any, value: Any, where: str) -> Iterator[tuple[str, Any, str]]:
    for one in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in one["rule"]:
            yield where, value, one["rule"]
    if isinstance(value, dict):
        for name, inner in value.items():
            below = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(below, dict):
                yield from _rules(below, inner, f"{where}.{name}")
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for place, inner in enumerate(value):
            yield from _rules(schema["items"], inner, f"{where}[{place}]")


def _strict(schema: Any) -> Any:
    """The schema in JSON Schema's dialect, closed against fields that it does not name."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    inner = {key: _inner(key, value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields", False)
    if "properties" in schema and "additionalProperties" not in schema and not is_open:
        inner["additionalProperties"] = False
    return inner


def _inner(key: str, value: Any) -> Any:
    """`properties` maps names to schemas: a field may be called like a keyword."""
    if key == "properties":
        return {name: _strict(one) for name, one in value.items()}
    return _strict(value)
