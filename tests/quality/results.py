"""Results as JSON lines, one a (set, detector, seed): what is there is not run again."""

import json
from collections.abc import Iterable
from pathlib import Path

from tests.quality.measure import Result

Key = tuple[str, str, int]


def read(path: Path) -> dict[Key, Result]:
    """The results of a file by (set, detector, seed); of two, the later. Empty if there is none.

    A last line that was cut off by a kill is dropped: its trial is run again.
    """
    if not path.exists():
        return {}
    found: dict[Key, Result] = {}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise
        for name in ("auroc_interval", "auprc_interval"):
            document[name] = tuple(document[name]) if document[name] else None
        result = Result(**document)
        found[result.set, result.detector, result.seed] = result
    return found


def append(path: Path, result: Result) -> None:
    """Add a line, after the last whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        whole = path.read_bytes().rpartition(b"\n")
        path.write_bytes(whole[0] + whole[1])
    with path.open("a") as file:
        file.write(json.dumps(result.to_document(), allow_nan=False) + "\n")


def to_csv(results: Iterable[Result], path: Path) -> None:
    """One row a result, in the order given."""
    import pandas as pd

    pd.DataFrame([result.to_document() for result in results]).to_csv(path, index=False)
