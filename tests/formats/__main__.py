"""`python -m tests.formats FOLDER`: every Parquet file of a folder through the verbs of a watch.

Each file is an input of its own, and so are the files of each folder together. A file is Parquet by
its magic or by its name. Exit status: 1 if any input ends in a trace, hangs, or is told to run the
same command again.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tests.formats.bounded import try_all
from tests.formats.trial import Outcome

_MAGIC = (b"PAR1", b"PARE")
_COLOURS = {"scored": "green", "set aside": "cyan", "refused": "yellow", "fault": "bold red"}


def list_inputs(folder: Path, largest: int) -> list[tuple[Path, ...]]:
    """Every file that is Parquet by magic or name, then the files of each folder that has several.

    Files of more than `largest` bytes are left out.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and _looks_parquet(path) and path.stat().st_size <= largest
    ]
    together: dict[Path, list[Path]] = {}
    for path in files:
        together.setdefault(path.parent, []).append(path)
    return [(path,) for path in files] + [tuple(p) for p in together.values() if len(p) > 1]


def _looks_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _MAGIC or ".parq" in path.name


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.formats", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bound", type=float, default=300, help="seconds that an input may take")
    parser.add_argument("--largest", type=int, default=64 * 1024**2, help="bytes of a file")
    parser.add_argument("--only-files", action="store_true", help="no folder as one input")
    given = parser.parse_args()
    inputs = list_inputs(given.folder, given.largest)
    if given.only_files:
        inputs = [paths for paths in inputs if len(paths) == 1]
    if not inputs:
        parser.error(f"expected Parquet files in {given.folder}, found none")
    console = Console(soft_wrap=True)
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="formats-") as folder:
        for outcome in try_all(inputs, Path(folder), given.bound):
            counted[outcome.kind] += 1
            console.print(_render(outcome))
    console.print(", ".join(f"{n:,} {kind}" for kind, n in sorted(counted.items())))
    return 1 if counted["fault"] else 0


def _render(outcome: Outcome) -> str:
    name = outcome.name if len(outcome.name) <= 60 else f"{outcome.name[:59]}…"
    shown = escape(ascii(name)[1:-1])
    colour = _COLOURS[outcome.kind]
    line = escape(ascii(outcome.line)[1:-1])
    return f"[{colour}]{outcome.kind:<9}[/] {outcome.seconds:5.1f} s  {shown:<60}  {line}"


if __name__ == "__main__":
    sys.exit(main())
