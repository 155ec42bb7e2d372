"""A small watch that is trained once; each trial scores or trains a copy of it."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from cluster.lake.output.schemas import FLAGS, REGISTRY, RUNS
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.demo import data
from jobs.score import score
from jobs.spec.spec import load
from jobs.train import TrainRequest, train
from models.bundle import Bundle, open_bundle
from tests.faults.processes import Command
from tests.night.conftest import DAYS, cut_into_files, write_spec

DAY = DAYS[5]
# One task a file: enough to be struck among them.
FILES = 60
# Enough for a kill after the second, and for a new group of workers to do several.
EPOCHS = 10
_TRAINING = {
    "days": f"{DAYS[0]}..{DAYS[4]}",
    "epochs": EPOCHS,
    "patience": EPOCHS,
    "baselines": [],
}
_THRESHOLD = {"policy": "quantile", "contamination": 0.1}
_SECONDS = 500  # for any one command: a bound on hangs, below that of a test


@dataclass(frozen=True)
class Judged:
    """The committed flags of a trial beside those of a quiet run on one node."""

    lost: int
    doubled: int
    same: bool  # every column of every flag, bit for bit


class Watch:
    """The input and the trained output that all trials share, and what a day's flags must be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data.write(folder, days=6, first_day=date(2026, 1, 1), scale=0.08)
        cut_into_files(folder / "flows" / f"day={DAY}", FILES)
        self.trained: Path | None = None
        self.flags = pa.table({})

    def learn(self) -> None:
        """Train on one node, undisturbed."""
        trial = self.trial("learned")
        train(load(trial.spec), TrainRequest(engine="local"))
        self.take(trial)

    def take(self, trained: "Trial") -> None:
        """Use what this trial has learned, and score it undisturbed, on one node."""
        self.trained = trained.folder / "out"
        trial = self.trial("quiet")
        assert score(load(trial.spec), DAY, engine="local").status == "committed"
        self.flags = trial.flags()
        assert self.flags.num_rows > FILES, "too few flags to tell a loss by"

    def enlarge(self, copies: int) -> int:
        """Write the day anew, with each row so many times under other ids; the rows."""
        folder = self.folder / "flows" / f"day={DAY}"
        rows = pa.concat_tables(pq.read_table(p, partitioning=None) for p in folder.iterdir())
        place = rows.column_names.index("uid")
        for path in folder.iterdir():
            path.unlink()
        many = []
        for copy in range(copies):
            ids = pc.binary_join_element_wise(rows.column("uid"), str(copy), "-")
            many.append(rows.set_column(place, "uid", ids))
        pq.write_table(pa.concat_tables(many), folder / "part-0.parquet")
        cut_into_files(folder, FILES)
        return copies * int(rows.num_rows)

    def trial(self, name: str, bucket: str | None = None, learned: bool = True) -> "Trial":
        """A copy with an output of its own, in which is what was `learned` so far: in a folder, or
        beside its input in `s3://bucket`."""
        folder = self.folder / name
        folder.mkdir()
        source, uri = self.folder / "flows", f"{folder}/out"
        if bucket:
            uri = f"s3://{bucket}/{name}/out"
            _copy(source, open_store(f"s3://{bucket}/flows"))
        if self.trained and learned:
            _copy(self.trained, open_store(uri))
        spec = write_spec(
            folder,
            f"s3://{bucket}/flows" if bucket else source,
            uri,
            training=_TRAINING,
            threshold=_THRESHOLD,
        )
        return Trial(self, folder, spec, open_store(uri))


def receipt(command: Command) -> dict[str, Any]:
    """The JSON of a command: all of its stdout, whatever Ray said of a node that went."""
    found: dict[str, Any] = json.loads(command.output)
    return found


def _copy(source: Path, target: Store) -> None:
    for path in source.rglob("*"):
        if path.is_file():
            target.put(path.relative_to(source).as_posix(), path.read_bytes())


@dataclass(frozen=True)
class Trial:
    """One copy of the watch."""

    watch: Watch
    folder: Path
    spec: Path
    output: Store

    def scored(self) -> int:
        """Tasks that have a record."""
        return sum("/tasks/" in found.key for found in self.output.child(RUNS).list())

    def checkpoints(self) -> int:
        """Epochs whose checkpoint is there; the last two are kept."""
        trainings = self.output.child("_trainings").list()
        return sum(found.key.endswith("/training.json") for found in trainings)

    def flags(self) -> pa.Table:
        """The committed flags of the day by their id, without the name of the run."""
        store = self.output.child(FLAGS)
        try:
            table = DeltaTable(store.delta_uri, storage_options=store.delta_options)
        except TableNotFoundError:
            return pa.table({"uid": pa.array([], pa.string())})
        whole = table.to_pyarrow_dataset().to_table(filter=ds.field("day") == DAY)
        return whole.drop_columns(["run_id"]).sort_by("uid")

    def judge(self) -> Judged:
        expected, found = self.watch.flags, self.flags()
        want, have = (Counter(table.column("uid").to_pylist()) for table in (expected, found))
        return Judged((want - have).total(), (have - want).total(), found.equals(expected))

    def learned(self) -> Bundle:
        """The champion."""
        registry = Registry(self.output.child(REGISTRY))
        champion = registry.require_champion().bundle
        return open_bundle(registry.read_bundle(champion), champion)

    def finish(self, command: Command) -> int | None:
        """The exit status; None where the command hangs."""
        code = command.wait(_SECONDS)
        command.kill()
        return code
