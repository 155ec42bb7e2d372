"""How long a run of very many finished splits takes to resume: `python -m tests.bench.journal`.

Writes the journal of a run that was killed with all splits but some done, as its drivers would have
left it, and takes it up again in a fresh process: from the segments, and from the records alone.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from cluster.distinct import KeySample, smallest
from cluster.lake import documents
from cluster.lake.journal import Journal
from cluster.lake.store import Store
from jobs.books import Account
from jobs.compaction import Compaction
from models.score_histogram import ScoreHistogram

ROWS = 250_000  # of a split, as in W1


def receipt(number: int) -> dict[str, Any]:
    """A receipt as large as those of W1."""
    chance = np.random.default_rng(number)
    scores, keys = ScoreHistogram(), KeySample()
    scores.update(chance.lognormal(size=4_000).astype(np.float32))
    keys.update(smallest(chance.integers(0, 2**63, 4_000).astype(np.uint64)))
    split = f"{number:020x}"
    name = f"day=2026-01-05/part-f8e9391d9246e053-{split}-1.parquet"
    return {
        "split": split,
        "file": f"day=2026-01-05/part-{number:05}.parquet",
        "splits": 1,
        "rows": ROWS,
        "filtered": 0,
        "scored": ROWS,
        "quarantined": 0,
        "flagged": 2_180,
        "non_finite": 0,
        "attempt": 1,
        "resent": 0,
        "sketch": scores.to_document(),
        "keys": keys.to_document(),
        "hours": {str(490_992 + hour): [10_416, 91] for hour in range(24)},
        "shards": [{"key": name, "rows": 2_180, "sha256": f"{number:064x}", "size": 250_654}],
        "score_shards": [],
        "quarantine_shards": [],
        "labelled": [],
        "rules": [],
        "unreadable": [],
        "stages": {"encode": 0.046599, "read": 0.230705, "score": 0.311556},
        "seconds": 0.66,
    }


def write(folder: Path, splits: int, tail: int) -> None:
    """All splits are recorded; the last `tail` of them were not summed when the driver died."""
    journal = Journal(Store.open(str(folder)), "run")
    compaction = Compaction(journal)
    records = folder / "run" / "splits"
    records.mkdir(parents=True)
    kinds = [receipt(number) for number in range(500)]  # making one takes longer than reading it
    for number in range(splits):
        one = kinds[number % len(kinds)] | {"split": f"{number:020x}"}
        name = f"day=2026-01-05/part-f8e9391d9246e053-{number:020x}-1.parquet"
        one["shards"] = [{**one["shards"][0], "key": name}]
        (records / f"{number:020x}.json").write_bytes(documents.encode(one))
        if number < splits - tail:
            compaction.add(one)


def resume(folder: Path, splits: int) -> dict[str, Any]:
    """What a driver does before it hands out splits; in a process of its own."""
    wanted = {f"{number:020x}" for number in range(splits)}
    journal = Journal(Store.open(str(folder)), "run")
    before, started = _memory(), time.perf_counter()
    found = Compaction(journal).recover(wanted)
    seconds = time.perf_counter() - started
    _check(found, splits)
    return {
        "seconds": round(seconds, 2),
        "peak_mib": round(_memory("VmHWM") - before),
        "kept_mib": round(_memory() - before),
    }


def _check(found: Account, splits: int) -> None:
    assert found.rows == splits * ROWS
    assert len(found.shards("shards")) == splits


def _memory(name: str = "VmRSS") -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/journal"))
    parser.add_argument("--splits", type=int, default=100_000)
    parser.add_argument("--tail", type=int, default=500, help="of them without a segment")
    parser.add_argument("--resume", action="store_true", help="only resume, and print JSON")
    given = parser.parse_args()
    if given.resume:
        print(json.dumps(resume(given.folder, given.splits)))
        return
    shutil.rmtree(given.folder, ignore_errors=True)
    write(given.folder, given.splits, given.tail)
    print(f"{given.splits:,} finished splits, resumed from")
    print(f"  segments and {given.tail:,} records: {_again(given)}")
    shutil.rmtree(given.folder / "run" / "segments")
    print(f"  records alone: {_again(given)}")
    shutil.rmtree(given.folder)


def _again(given: argparse.Namespace) -> str:
    command = [sys.executable, "-m", "tests.bench.journal", "--resume"]
    command += ["--folder", str(given.folder), "--splits", str(given.splits)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
