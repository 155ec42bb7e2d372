"""What every contender is asked: score a lake with a bundle, and write the rows above a threshold.

A contender is `python -m tests.bench.contenders.NAME --lake … --bundle … --threshold … --out …`.
It writes Parquet files with the columns of `OUTPUT`, and one line of JSON on stdout.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

KEPT = ("id", "ts", "src", "dst")
OUTPUT = (*KEPT, "score")


@dataclass(frozen=True)
class Task:
    """One scoring of one lake."""

    lake: str  # folder or s3:// prefix
    bundle: Path  # folder of a bundle
    threshold: float
    out: Path  # a new folder
    processes: int

    @property
    def remote(self) -> bool:
        return self.lake.startswith("s3://")

    @property
    def root(self) -> str:
        """The lake's path on `filesystem()`."""
        return self.lake.removeprefix("s3://").rstrip("/")

    def filesystem(self) -> fs.FileSystem:
        """Where the lake is; the endpoint and the keys of S3 come from the environment."""
        if not self.remote:
            return fs.LocalFileSystem()
        return fs.S3FileSystem(endpoint_override=os.environ.get("AWS_ENDPOINT_URL"))

    def files(self) -> list[str]:
        """The Parquet files of the lake, largest first."""
        selector = fs.FileSelector(self.root, recursive=True)
        found = self.filesystem().get_file_info(selector)
        parquet = [f for f in found if f.path.endswith(".parquet")]
        return [f.path for f in sorted(parquet, key=lambda f: (-f.size, f.path))]


def parse(description: str | None) -> Task:
    """The task of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--lake", required=True, help="folder or s3:// prefix with Parquet files")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--threshold", type=float, required=True, help="rows above it are flagged")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the flags")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="of one thread")
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    lake = given.lake if given.lake.startswith("s3://") else str(Path(given.lake).absolute())
    bundle, out = given.bundle.absolute(), given.out.absolute()
    return Task(lake, bundle, given.threshold, out, given.processes)


def report(started: float, rows: int | None = None, flagged: int | None = None) -> None:
    """Print the line that the harness reads: job seconds since `started` (monotonic), and the
    counts where the contender knows them without another pass over the data."""
    seconds = round(time.monotonic() - started, 3)
    print(json.dumps({"rows": rows, "flagged": flagged, "job_seconds": seconds}), flush=True)
