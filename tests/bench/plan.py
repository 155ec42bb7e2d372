"""What the driver of a very large night does, without its data: `python -m tests.bench.plan`.

The driver's own code plans a snapshot of so many files of one split each, adds up the answers of
the actors as they come, is killed shortly before the end, takes the run up again, and commits. No
data file is there and no actor runs: answers are made up, as large as those of W1. Each step runs
in a process of its own, which tells its time and the largest memory it had (so the memory of a step
counts what a driver holds by then: the snapshot, and the books).
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.input_file import InputFile, RowGroup
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, cut_splits
from cluster.lake.output.journal import Journal, record_key
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from cluster.splits.key_sample import KeySample, smallest
from cluster.splits.stream import blocks_of
from jobs.scoring.books import Balance
from jobs.scoring.plan import Planned, open_books
from jobs.scoring.segments import SEGMENT, Compaction
from models import canonical_json
from models.scores.histogram import ScoreHistogram
from tests.bench.measure import ROOT

DAY, RUN = "2026-01-05", "f8e9391d9246e053"
STEPS = ("plan", "hand_out", "records", "sum_up", "resume", "commit")
SIZES = (10_000, 100_000, 1_000_000)  # splits
SCHEMA = pa.schema([("score", pa.float32())])  # of the flags: files are named, not written
COLUMNS = tuple((f"column_{number}", "double") for number in range(20))
FLAGS = 250  # of a split: 1 in 4,000 rows
# Answers that are made up before the clock runs; making one takes longer than adding it up.
KINDS = 500
# Splits that the killed driver had not heard of; before them are up to 999 without a segment.
TAIL = 500


def snapshot_of(splits: int) -> Snapshot:
    """As `snapshot.take` leaves it: equal columns are one object."""
    group = (RowGroup(SPLIT_ROWS, SPLIT_BYTES),)
    files = tuple(
        InputFile(f"day={DAY}/part-{n:07}.parquet", 10**8, f"{n:032x}", SPLIT_ROWS, group, COLUMNS)
        for n in range(splits)
    )
    return Snapshot("s3://lake/flows", DAY, files, (), pa.schema([("column_0", pa.float64())]))


def answers() -> list[str]:
    """Receipts of actors as they come to the driver."""
    return [json.dumps(_answer(np.random.default_rng(number))) for number in range(KINDS)]


def _answer(chance: np.random.Generator) -> dict[str, Any]:
    scores, keys = ScoreHistogram(), KeySample()
    scores.update(chance.lognormal(size=4_000).astype(np.float32))
    keys.update(smallest(chance.integers(0, 2**63, 4_000).astype(np.uint64)))
    return {
        "split": "",
        "file": f"day={DAY}/part-0000000.parquet",
        "splits": 1,
        "rows": SPLIT_ROWS,
        "filtered": 0,
        "scored": SPLIT_ROWS,
        "quarantined": 0,
        "flagged": FLAGS,
        "non_finite": 0,
        "attempt": 1,
        "resent": 0,
        "sketch": scores.to_document(),
        "keys": keys.to_document(),
        "hours": {str(490_992 + hour): [SPLIT_ROWS // 24, FLAGS // 24] for hour in range(24)},
        "shards": [],
        "score_shards": [],
        "quarantine_shards": [],
        "labelled": [],
        "rules": [],
        "unreadable": [],
        "stages": {"encode": 0.046599, "read": 0.230705, "score": 0.311556},
        "seconds": 0.66,
    }


def answer_of(split: str, text: str, number: int) -> dict[str, Any]:
    """The receipt of a split, read from its text as the driver reads it."""
    one: dict[str, Any] = json.loads(text)
    name = f"day={DAY}/part-{RUN}-{split}-1.parquet"
    shard = {"key": name, "rows": FLAGS, "sha256": f"{number:064x}", "size": 31_416}
    return {**one, "split": split, "shards": [shard]}


class Night:
    """The steps of a driver; each goes on from what the earlier ones left in the store."""

    def __init__(self, uri: str, splits: int) -> None:
        self.store, self.splits = open_store(uri), splits
        self.journal = Journal(self.store.child("_runs"), RUN)
        self.taken = snapshot_of(splits)

    def plan(self) -> None:
        """Cut the snapshot, write the plan down, and find that nothing is done."""
        with _told("plan"):
            balance, todo = self._open()
        assert (len(balance.splits), len(todo)) == (0, self.splits)

    def hand_out(self) -> None:
        """What Ray Data is given: blocks of tasks."""
        _, todo = self._open()
        with _told("hand out"):
            blocks = blocks_of([(DAY, task.text) for task in todo])
        assert sum(len(block) for block in blocks) == self.splits

    def records(self) -> None:
        """The records, which actors write: what a segment covers is listed and never read."""
        kinds, ids = answers(), self._ids()
        for number, split in enumerate(ids):
            late = number >= self._covered
            one = answer_of(split, kinds[number % KINDS], number) if late else {}
            key, data = record_key(split), canonical_json.encode(one) if late else b""
            if self.journal.store.remote:
                self.journal.store.put(key, data)
            else:  # without the flushes to the disk that a store makes: ten minutes of a million
                path = Path(self.journal.store.uri, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def sum_up(self) -> None:
        """Add up the answers of all splits but the last: what a driver does between others."""
        kinds, ids = answers(), self._ids()
        compaction, balance = Compaction(self.journal), Balance(self.taken, self.splits)
        with _told("sum up"):
            for number, split in enumerate(ids[:-TAIL]):
                balance.merge(compaction.add(answer_of(split, kinds[number % KINDS], number)))

    def resume(self) -> None:
        """Take the run up again in a fresh process."""
        with _told("resume"):
            balance, todo = self._open()
        assert (len(balance.splits), len(todo)) == (self.splits, 0)

    def commit(self) -> None:
        """Balance, commit the flags, and look once more whether the run is committed."""
        balance, _ = self._open()
        with _told("commit"):
            balance.check()
            table = LakeTable(self.store.child("flags"), SCHEMA, "flags")
            table.commit(Commit(DAY, RUN, self.taken.digest), balance.shards("shards"), 0)
        with _told("look at the table"):
            assert table.is_run_committed(DAY, RUN)
            assert table.recent_rows("2026-01-06") == []

    @property
    def _covered(self) -> int:
        """Splits that the killed driver had summed up in segments."""
        return (self.splits - TAIL) // SEGMENT * SEGMENT

    def _ids(self) -> list[str]:
        return [split.id for split in cut_splits(self.taken, SPLIT_ROWS, SPLIT_BYTES)]

    def _open(self) -> tuple[Balance, list[Planned]]:
        facts = {"day": DAY, "snapshot": self.taken.digest}
        return open_books(self.taken, facts, self.journal, Compaction(self.journal))


@contextmanager
def _told(step: str) -> Iterator[None]:
    """Print the seconds of the block, and the most memory that this process has had so far."""
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    print(json.dumps({"step": step, "seconds": seconds, "mib": peak}), flush=True)


def measure(folder: Path, splits: int) -> list[dict[str, Any]]:
    """Seconds and peak memory of each step, one after the other."""
    shutil.rmtree(folder, ignore_errors=True)
    found = []
    print(f"{splits:,} splits: time, and peak memory of the driver")
    for step in STEPS:
        command = [sys.executable, "-m", "tests.bench.plan", "--step", step]
        command += ["--folder", str(folder), "--splits", str(splits)]
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        for line in map(json.loads, told.stdout.splitlines()):
            print(
                f"  {line['step']:<18}{line['seconds']:8.1f} s {line['mib']:8,.0f} MiB", flush=True
            )
            found.append({"splits": splits, **line})
    shutil.rmtree(folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/plan"))
    parser.add_argument("--splits", type=int, help=f"only so many, in place of {SIZES}")
    parser.add_argument("--step", choices=STEPS, help="only this, from what the others left")
    given = parser.parse_args()
    if given.step:
        getattr(Night(str(given.folder), given.splits), given.step)()
        return
    sizes = (given.splits,) if given.splits else SIZES
    found = [one for splits in sizes for one in measure(given.folder / "lake", splits)]
    (given.folder / "driver.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
