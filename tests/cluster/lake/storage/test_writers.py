"""Who may write over an object of the lake, and that nobody does in the registry."""

import ast
from pathlib import Path

import cluster
import jobs

_ROOT = Path(cluster.__file__).parents[1]

# `Store.put` replaces. Each function that calls it, and why nothing that is needed is lost; all
# others use `Store.create`, which never does.
REPLACING = {
    "cluster/lake/derived/derive.py": {"take_snapshot": "the same bytes, for their time"},
    "cluster/lake/output/journal.py": {
        "begin_step": "an empty mark of one attempt",
        "write_segment": "a new name each time",
        "write_ending": "how the scoring of a run's last command ended",
        "write_result": "the result of a run's last command",
    },
    "cluster/lake/output/shard.py": {"write_shard": "a key of one attempt"},
    "cluster/lake/output/vacuum.py": {"read_store_time": "a new name each time"},
    "cluster/training/local_trainer.py": {"_save": "a checkpoint of one training, until it ends"},
    "cluster/training/trials.py": {"on_trial_complete": "a trial that a resumed search runs again"},
    "jobs/flags.py": {
        "export": "the marker of an export: begun, then done",
        "_begin": "the marker of an earlier export",
        "_put": "the days of an earlier export",
    },
    "jobs/report/publishing.py": {
        "publish": "the card of a day's last run",
        "_draw_page": "a day's page, drawn anew from its card",
        "_link_page": "a day's page, linked to the days beside it",
        "_link": "the page of all days",
    },
}


_FILES = sorted(p for room in (cluster, jobs) for p in Path(room.__path__[0]).rglob("*.py"))


def test_each_writer_that_replaces_an_object_is_named_with_its_reason() -> None:
    found: dict[str, set[str]] = {}
    for path in _FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_is_put, ast.walk(function))):
                found.setdefault(path.relative_to(_ROOT).as_posix(), set()).add(function.name)
    assert found == {file: set(functions) for file, functions in REPLACING.items()}


def test_the_folder_of_the_registry_is_opened_by_the_registry_alone() -> None:
    opened, wrapped = 0, 0
    for path in _FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            opened += _is_folder(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Registry":
                wrapped += any(map(_is_folder, node.args))
            if isinstance(node, ast.Attribute) and node.attr == "store":
                assert "registry" not in ast.unparse(node.value).lower(), path
    assert opened == wrapped > 0


def _is_put(node: ast.AST) -> bool:
    """A call of `put` with a key and data; queues have a method of this name with one argument."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "put"
        and len(node.args) == 2
    )


def _is_folder(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node).endswith(".child(REGISTRY)")
