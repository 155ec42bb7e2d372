"""Every claim of SECURITY.md names its tests, and each of them exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PAGE = (ROOT / "SECURITY.md").read_text()
_NAME = re.compile(r"`([\w/]+\.py)::(\w+)`")


def list_claims(page: str) -> list[str]:
    """The list entries of the sections Defences and Roles."""
    sections = page.partition("## Defences")[2].partition("## Not defended")[0]
    entries = re.split(r"\n(?=- )|\n\n", sections)
    return [entry.strip() for entry in entries if entry.startswith("- ")]


def find_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("claim", list_claims(_PAGE), ids=lambda claim: claim[2:40])
def test_a_claim_names_tests_that_exist(claim: str) -> None:
    named = _NAME.findall(claim)
    assert named, "expected the tests of the claim, such as `test_code.py::test_…`"
    for file, test in named:
        path = ROOT / file if "/" in file else Path(__file__).parent / file
        assert test.startswith("test_")
        assert test in find_tests(path), f"{path} has no {test}"


def test_every_bold_statement_of_the_defences_is_followed_by_claims() -> None:
    defences = _PAGE.partition("## Defences")[2].partition("## Roles")[0]
    parts = re.split(r"\n(?=\*\*)", defences)[1:]
    assert len(parts) >= 10
    assert [
        part.partition("\n")[0] for part in parts if not list_claims(f"## Defences\n{part}")
    ] == []
    assert len(list_claims(_PAGE)) > len(parts)
