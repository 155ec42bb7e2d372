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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.input_file import FileColumn, InputFile, RowGroup
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, cut_splits
from cluster.lake.output.journal import Journal, record_key
from cluster.lake.output.shard import Shard
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from cluster.scoring.receipt import HourCounts, Receipt
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample, keep_smallest
from cluster.splits.ray_engine import make_blocks
from jobs.scoring.books import RunBooks
from jobs.scoring.plan import Work, open_work
from jobs.scoring.segments import SEGMENT, Compaction
from models import canonical_json
from models.scores.histogram import ScoreHistogram
from tests.bench.measure import ROOT

DAY, RUN = "2026-01-05", "f8e9391d9246e053"
STEPS = ("plan", "hand_out", "records", "sum_up", "resume", "commit")
SIZES = (10_000, 100_000, 1_000_000)  # splits
SCHEMA = pa.schema([("score", pa.float32())])  # of the flags: files are named, not written
COLUMNS = tuple(FileColumn(f"column_{number}", pa.float64()) for number in range(20))
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
    """Receipts of workers as JSON, as they come to the driver."""
    receipts = (_receipt(np.random.default_rng(number)) for number in range(KINDS))
    return [json.dumps(receipt.to_document()) for receipt in receipts]


def _receipt(chance: np.random.Generator) -> Receipt:
    scores, keys = ScoreHistogram(), KeySample()
    scores.update(chance.lognormal(size=4_000).astype(np.float32))
    keys.update(keep_smallest(chance.integers(0, 2**63, 4_000).astype(np.uint64)))
    return Receipt(
        task="",
        attempt=1,
        counts=Counts(splits=1, rows=SPLIT_ROWS, scored=SPLIT_ROWS, flagged=FLAGS, tasks=1),
        scores=scores,
        keys=keys,
        hours={490_992 + hour: HourCounts(SPLIT_ROWS // 24, FLAGS // 24) for hour in range(24)},
        quarantine=(),
        shards={},
        stages={"encode": 0.046599, "read": 0.230705, "score": 0.311556},
    )


def receipt_of(task: str, text: str, number: int) -> Receipt:
    """The receipt of a task, read from its text as the driver reads it."""
    name = f"day={DAY}/part-{RUN}-{task}-1.parquet"
    shard = Shard(name, 31_416, f"{number:064x}", FLAGS)
    return replace(Receipt.from_document(json.loads(text)), task=task, shards={"flags": shard})


class Night:
    """The steps of a driver; each goes on from what the earlier ones left in the store."""

    def __init__(self, uri: str, splits: int) -> None:
        self.store, self.splits = open_store(uri), splits
        self.journal = Journal(self.store.child("_runs"), RUN)
        self.taken = snapshot_of(splits)

    def plan(self) -> None:
        """Cut the snapshot, write the plan down, and find that nothing is done."""
        with _told("plan"):
            work = self._open()
        assert (len(work.books.tasks), len(work.todo)) == (0, self.splits)

    def hand_out(self) -> None:
        """What Ray Data is given: blocks of tasks."""
        todo = self._open().todo
        with _told("hand out"):
            blocks = make_blocks([(DAY, task.text) for task in todo])
        assert sum(len(block) for block in blocks) == self.splits

    def records(self) -> None:
        """The records, which actors write: what a segment covers is listed and never read."""
        kinds, ids = answers(), self._ids()
        for number, split in enumerate(ids):
            late = number >= self._covered
            data = b""
            if late:
                one = receipt_of(split, kinds[number % KINDS], number)
                data = canonical_json.encode(one.to_document())
            key = record_key(split)
            if self.journal.store.remote:
                self.journal.store.put(key, data)
            else:  # without the flushes to the disk that a store makes: ten minutes of a million
                path = Path(self.journal.store.uri, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)

    def sum_up(self) -> None:
        """Add up the answers of all splits but the last: what a driver does between others."""
        kinds, ids = answers(), self._ids()
        planned = Counts(tasks=self.splits, splits=self.splits)
        work = Work(RunBooks(self.taken, planned), (), Compaction(self.journal))
        with _told("sum up"):
            for number, split in enumerate(ids[:-TAIL]):
                work.add(receipt_of(split, kinds[number % KINDS], number))

    def resume(self) -> None:
        """Take the run up again in a fresh process."""
        with _told("resume"):
            work = self._open()
        assert (len(work.books.tasks), len(work.todo)) == (self.splits, 0)

    def commit(self) -> None:
        """Balance, commit the flags, and look once more whether the run is committed."""
        books = self._open().books
        with _told("commit"):
            books.check()
            table = LakeTable(self.store.child("flags"), SCHEMA, "flags")
            table.commit(Commit(DAY, RUN, self.taken.digest), books.shards("flags"), 0)
        with _told("look at the table"):
            assert table.is_run_committed(DAY, RUN)
            assert table.recent_rows("2026-01-06") == []

    @property
    def _covered(self) -> int:
        """Splits that the killed driver had summed up in segments."""
        return (self.splits - TAIL) // SEGMENT * SEGMENT

    def _ids(self) -> list[str]:
        return [split.id for split in cut_splits(self.taken, SPLIT_ROWS, SPLIT_BYTES)]

    def _open(self) -> Work:
        facts = {"day": DAY, "snapshot": self.taken.digest}
        return open_work(self.taken, facts, self.journal, lambda books: ())


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
