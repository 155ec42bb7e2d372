"""Anomaray by its command line, with everything on: journal, books, checksums, reasons, sketches,
Delta commit. A run goes into a new output folder that has the trained registry and nothing else."""

import argparse
import os
import shutil
import sys
from pathlib import Path

import yaml

from tests.bench.workloads import DAY


def fresh(spec: Path, out: Path) -> list[str]:
    """Make a new output folder for the watch of a spec that was trained; the command to run."""
    document = yaml.safe_load(spec.read_text())
    trained = Path(document["output"]["uri"])
    shutil.copytree(trained / "registry", out / "registry")
    document["output"]["uri"] = str(out)
    copy = out / "spec.yaml"
    copy.write_text(yaml.safe_dump(document, sort_keys=False))
    return [sys.executable, "-m", "jobs", "score", str(copy), "--day", DAY, "--json"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="spec of a trained watch")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the flags")
    given = parser.parse_args()
    command = fresh(given.spec, given.out.absolute())
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
