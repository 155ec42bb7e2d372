"""The notebooks of `examples/`, run without Jupyter."""

import ast
import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str) -> dict[str, Any]:
    """Run the code cells of a notebook in order; what they defined, and as `_` the last value."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in read(name)["cells"]:
        if cell["cell_type"] == "code":
            body = ast.parse("".join(cell["source"])).body
            last = body.pop() if isinstance(body[-1], ast.Expr) else None
            exec(compile(ast.Module(body, []), name, "exec"), names)
            if isinstance(last, ast.Expr):
                names["_"] = eval(compile(ast.Expression(last.value), name, "eval"), names)
    return names


def read(name: str) -> dict[str, Any]:
    """The notebook as JSON."""
    document: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    return document
