"""Our code cannot run what it reads: it uses no function that could."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Full names of functions and modules that unpickle, run or hand to a shell what they are given. A
# module bans everything in it.
BANNED = (
    *("pickle", "_pickle", "cloudpickle", "ray.cloudpickle", "dill", "joblib", "marshal", "shelve"),
    *("torch.load", "torch.jit.load", "torch.export.load", "torch.hub", "torch.package"),
    *("pandas.read_pickle", "numpy.load", "sklearn.externals"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load"),
    *("yaml.unsafe_load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader"),
    *("eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "runpy"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty"),
)
# Allowed in tests: attacks are made of pickles, and Ray pickles what it sends.
IN_TESTS = {"pickle": {"cluster/lake/storage/test_store.py", "security/test_pickles.py"}}


def wrong(source: str) -> list[str]:
    """Banned names that the source uses, and calls with a shell."""
    tree = ast.parse(source)
    known = dict(_imports(tree))
    found = [full for full in known.values() if _banned(full)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and _banned(full := _full(node, known)):
            found.append(full)
        if isinstance(node, ast.Call):
            found += [f"{k.arg}=" for k in node.keywords if k.arg in ("shell", "allow_pickle")]
    return sorted(set(found))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local name and full name of everything that is imported, anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
                if _banned(alias.name):
                    yield alias.name, alias.name
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _full(node: ast.AST, known: dict[str, str]) -> str:
    """`np.load` as numpy.load; "" for an expression that does not begin with a name."""
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := _full(node.value, known)):
        return f"{base}.{node.attr}"
    return ""


def _banned(full: str) -> bool:
    return any(full == name or full.startswith(f"{name}.") for name in BANNED)


@pytest.mark.parametrize("folder", ["models", "cluster", "jobs"])
def test_nothing_that_runs_what_it_reads_is_in_the_code(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): wrong(file.read_text()) for file in files}
    assert {file: names for file, names in found.items() if names} == {}


def test_in_tests_only_attacks_are_pickled_and_no_shell_is_called() -> None:
    folder = ROOT / "tests"
    for file in sorted(folder.rglob("*.py")):
        place = str(file.relative_to(folder))
        allowed = {name for name, files in IN_TESTS.items() if place in files}
        assert {name.partition(".")[0] for name in wrong(file.read_text())} <= allowed, place


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as harmless",
        "from pickle import loads",
        "def f():\n    from ray import cloudpickle",
        "import ray\nray.cloudpickle.loads(b'')",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.export.load('x')",
        "from torch.export import load as read\nread('x')",
        "import torch.hub",
        "import yaml\nyaml.load('x', yaml.SafeLoader)",
        "from yaml import UnsafeLoader",
        "import numpy as np\nnp.load('x')",
        "import os\nos.system('x')",
        "from os import popen",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "eval('1')",
        "run = exec",
        "__import__('pickle')",
    ],
)
def test_another_name_does_not_get_round_the_ban(source: str) -> None:
    assert wrong(source)


@pytest.mark.parametrize(
    "source", ["model.eval()", "re.compile('x')", "import yaml\nyaml.safe_load('')"]
)
def test_a_name_that_only_looks_similar_is_allowed(source: str) -> None:
    assert wrong(source) == []
