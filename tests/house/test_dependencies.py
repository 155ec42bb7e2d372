"""Every package that the code imports is declared, with its reason; the locks hold it by hash."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from infra.install import normalised, pins

ROOT = Path(__file__).resolve().parents[2]
_TEXT = (ROOT / "pyproject.toml").read_text()
_PROJECT = tomllib.loads(_TEXT)["project"]
_CONTRACT = "models/contract"  # tests that ship with the product, and have an extra of their own
_OWN = {"models", "cluster", "jobs", "tests", "infra"}


def _names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {normalised(match.group()) for match in found if match}


def _imported(folder: str) -> set[str]:
    """Top-level modules that are neither Python's nor ours."""
    files = subprocess.check_output(["git", "ls-files", f"{folder}/*.py"], cwd=ROOT, text=True)
    found: set[str] = set()
    for file in files.split():
        if file.startswith(_CONTRACT) and folder != _CONTRACT:
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - _OWN - sys.stdlib_module_names


@pytest.mark.parametrize("folder", ["models", "cluster", "jobs", _CONTRACT])
def test_what_the_product_imports_is_declared(folder: str) -> None:
    declared = _names(_PROJECT["dependencies"])
    if folder == _CONTRACT:
        declared |= _names(_PROJECT["optional-dependencies"]["contract"])
    distributions = packages_distributions()
    for module in _imported(folder):
        names = {normalised(name) for name in distributions.get(module, [module])}
        assert names & declared, f"{folder} imports {module}: declare it in pyproject.toml"


def test_a_declared_package_is_imported() -> None:
    distributions = packages_distributions()
    modules = set.union(*map(_imported, ("models", "cluster", "jobs")))
    used = {normalised(name) for module in modules for name in distributions.get(module, [module])}
    assert _names(_PROJECT["dependencies"]) <= used


def test_a_dependency_of_the_product_is_pinned_and_has_its_reason() -> None:
    listed = re.search(r"(?s)\ndependencies = \[\n(.*?)\n\]", _TEXT)
    assert listed
    for line in listed.group(1).splitlines():
        assert re.fullmatch(r'    "[\w.\[\],-]+==[\w.]+", +# .+', line), line


def test_the_locks_have_what_is_declared_and_a_hash_of_each_package() -> None:
    locked = pins(ROOT / "requirements.lock")
    tools = pins(ROOT / "requirements-dev.lock")
    assert _names(_PROJECT["dependencies"]) <= locked.keys()
    assert _names(_PROJECT["optional-dependencies"]["dev"]) <= locked.keys() | tools.keys()
    locks = subprocess.check_output(["git", "ls-files", "*.lock"], cwd=ROOT, text=True).split()
    for name in locks:
        if not name.startswith("infra/terraform"):
            text = (ROOT / name).read_text()
            entries = re.findall(r"(?m)^[\w.-]+==.*\n(?:    .*\n)*", text)
            assert len(entries) == len(pins(ROOT / name))
            assert all("--hash=sha256:" in entry for entry in entries), name
