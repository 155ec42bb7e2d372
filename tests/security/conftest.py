"""One night over a hostile lake for all tests: the files and the lines that it wrote."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cluster.lake.registry.signatures import make_key
from jobs.cli.app import app
from jobs.terminal import console
from tests.security import hostile

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef" * 4
DAY = hostile.DAYS[3]
METRICS = "night.prom"
# Verbs whose output people and programs read.
READING = (
    ("flags", "--limit", "300"),
    ("flags", "--json"),
    ("flags", "--limit", "300", "--sql", "SELECT note, account FROM flags"),
    ("plan", "--day", DAY),
    ("plan", "--day", DAY, "--json"),
    ("check",),
    ("registry",),
)


@dataclass(frozen=True)
class Night:
    """The results of a training and a night."""

    folder: Path  # with the watch, `out`, and `export`
    said: dict[str, tuple[str, str]]  # stdout and stderr by command
    logs: Path  # of Ray

    @property
    def reports(self) -> Path:
        return self.folder / "out" / "reports" / f"day={DAY}"

    @property
    def card(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.reports / "run_card.json").read_text())
        return document

    def rows(self, table: str) -> pa.Table:
        """All rows in the files of a table."""
        files = sorted((self.folder / "out" / table).rglob("*.parquet"))
        return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files])


@pytest.fixture(scope="session")
def night() -> Iterator[Night]:
    folder = Path(tempfile.mkdtemp(prefix="night-"))  # short: Ray's sockets are in it
    try:
        key_file = folder / "signing.pem"
        watch = str(hostile.write(folder, make_key(key_file).public))
        metrics = ("--metrics-file", str(folder / METRICS), "--metrics-port", "0")
        signed = ("--sign-with", str(key_file))
        said = {
            "train": run(folder, "train", watch, *signed),
            # On Ray, whose logs must hold no value either.
            "nightly": run(folder, "nightly", watch, *signed, *metrics, "--engine", "ray"),
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(console.out, "width", 200)  # a console knows its width when it is made
            for verb, *options in (*READING, ("flags", "--export", str(folder / "export"))):
                answer = CliRunner().invoke(app, [verb, watch, *options])
                assert answer.exit_code == 0, answer.output
                said[" ".join([verb, *options])] = answer.stdout, answer.stderr
        yield Night(folder, said, folder / "ray")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(folder: Path, *arguments: str) -> tuple[str, str]:
    """Run one command; returns its stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"ANOMARAY_HMAC_KEY": KEY, "RAY_TMPDIR": str(folder / "ray"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=240,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, f"{arguments}: {err}"
    return out, err
