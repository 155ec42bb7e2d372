"""The notebooks of `examples/`, run without Jupyter: each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(name: str, *checks: str) -> None:
    """Run the code cells of a notebook in order, then assert the expressions of `checks`."""
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    lines = ["".join(cell["source"]) for cell in cells]
    lines += [f"assert {check}, {check!r}" for check in checks]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def read(name: str) -> dict[str, Any]:
    """The notebook as JSON."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    return document
