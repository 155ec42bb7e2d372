"""How many threads torch has in a worker of Ray."""

import os
import subprocess
import sys

import pytest

from cluster.runtime.shipping import ROOT
from cluster.runtime.threads import VARIABLE

_AS_RAY_DOES = f"""
import os
os.environ.setdefault({VARIABLE!r}, "1")
from cluster.runtime.threads import set_torch_threads
print(set_torch_threads(2))
"""


@pytest.mark.parametrize(("operator", "threads"), [("3", 3), ("1", 1), (None, 2), ("", 2)])
def test_torch_has_the_threads_that_the_operator_set_or_else_those_of_the_plan(
    operator: str | None, threads: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if operator is None else {VARIABLE: operator}
    command = [sys.executable, "-c", _AS_RAY_DOES]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(threads), done.stderr


def test_no_other_code_gives_torch_threads() -> None:
    """What an operator sets is obeyed only by `set_torch_threads`. A training step may use fewer,
    and a test of the contract compares numbers of threads."""
    rooms = [path for room in ("models", "cluster", "jobs") for path in (ROOT / room).rglob("*.py")]
    found = [path for path in rooms if "set_num_threads(" in path.read_text(encoding="utf-8")]
    assert {str(path.relative_to(ROOT)) for path in found} == {
        *("cluster/runtime/threads.py", "models/training/threads.py", "models/contract/suite.py")
    }
