"""The arguments of the AWS provider's resources, and what of a module does not fit them.

`python -m tests.infra.provider WHEEL` writes `aws_provider.json` from the classes of PyPI's
`cdktf-cdktf-provider-aws`, which are made from the provider's own schema: 60 MB, of which this is
the part that our modules use (21.22.1, for version 6.25.0 of the provider). Do it again for another
resource or version.
"""

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2

from tests.infra.rendering import ROOT

SCHEMA = Path(__file__).with_name("aws_provider.json")
_PACKAGE = "cdktf_cdktf_provider_aws"
_OF_TERRAFORM = {
    *("connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"),
    "dynamic",
}
_SIMPLE = {"builtins.str": "string", "jsii.Number": "number", "builtins.bool": "bool"}

Schema = dict[str, Any]  # by argument: "required" or "optional", and its type or its own arguments


def find_resources(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Kind, name and body of each resource and data source of a module."""
    for path in sorted(folder.rglob("*.tf")):
        document = hcl2.loads(path.read_text())
        for prefix, section in (("", "resource"), ("data_", "data")):
            for entry in document.get(section, ()):
                for kind, named in entry.items():
                    for name, body in named.items():
                        if not name.startswith("__"):
                            yield prefix + kind.strip('"'), name.strip('"'), body


def misfits(body: dict[str, Any], schema: Schema, where: str) -> Iterator[str]:
    """Arguments that the schema does not have, those that it misses, and values of another type."""
    given = {name: value for name, value in body.items() if not name.startswith("__")}
    for one in given.get("dynamic", ()):
        for name, block in one.items():
            if not name.startswith("__"):
                given[name.strip('"')] = block["content"]
    for name in sorted(given.keys() - schema.keys() - _OF_TERRAFORM):
        yield f"{where}: no argument {name!r}; there are {', '.join(sorted(schema))}"
    for name, one in schema.items():
        if name not in given:
            if one["required"]:
                yield f"{where}: the argument {name!r} is missing"
        elif isinstance(one["type"], dict):
            if not isinstance(given[name], list):
                yield f"{where}.{name}: expected a block, found a value"
                continue
            for block in given[name]:
                yield from misfits(block, one["type"], f"{where}.{name}")
        elif not _fits(given[name], one["type"]):
            yield f"{where}.{name}: expected a {one['type']}, found {given[name]!r}"


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, str) and "${" in value:
        return True  # what it becomes is known to Terraform alone
    if isinstance(value, list):
        return wanted == "list"
    if isinstance(value, dict):
        return wanted == "map"
    if wanted == "string":  # Terraform makes one of a number or a truth
        return isinstance(value, str | int | float)
    if wanted == "bool":
        return isinstance(value, bool)
    return wanted == "number" and isinstance(value, int | float) and not isinstance(value, bool)


def read_wheel(path: Path, kinds: set[str]) -> dict[str, Schema]:
    """The schemas of these kinds."""
    with zipfile.ZipFile(path) as wheel:
        found = {}
        for kind in sorted(kinds):
            module = kind.removeprefix("aws_")
            text = wheel.read(f"{_PACKAGE}/{module}/__init__.py").decode()
            classes = {
                node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)
            }
            (whole,) = (name for name, made in classes.items() if _is_resource(made))
            found[kind] = _read_class(classes, whole)
    return found


def _is_resource(made: ast.ClassDef) -> bool:
    bases = {ast.unparse(base).rpartition(".")[2] for base in made.bases}
    return bool(bases & {"TerraformResource", "TerraformDataSource"})


def _read_class(classes: dict[str, ast.ClassDef], name: str) -> Schema:
    makes = (one for one in classes[name].body if isinstance(one, ast.FunctionDef))
    (init,) = (one for one in makes if one.name == "__init__")
    arguments = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return {
        one.arg: {"required": default is None, "type": _read_type(classes, one.annotation)}
        for one, default in arguments
        if one.arg not in _OF_TERRAFORM
    }


def _read_type(classes: dict[str, ast.ClassDef], annotation: ast.expr | None) -> str | Schema:
    text = ast.unparse(annotation) if annotation else ""
    if named := re.search(r"'(\w+)'", text):
        return _read_class(classes, named[1])
    if "Mapping" in text:
        return "map"
    if "Sequence" in text:
        return "list"
    return next(kind for written, kind in _SIMPLE.items() if written in text)


if __name__ == "__main__":
    ours = {kind for kind, _, _ in find_resources(ROOT / "infra/terraform")}
    made = read_wheel(Path(sys.argv[1]), ours)
    lines = [f"{json.dumps(kind)}: {json.dumps(one, sort_keys=True)}" for kind, one in made.items()]
    SCHEMA.write_text("{\n" + ",\n".join(lines) + "\n}\n")
