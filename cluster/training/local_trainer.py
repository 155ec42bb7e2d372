"""Train a detector in this process, and go on from its last checkpoint."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import torch

from cluster.lake.storage.store import Store
from cluster.runtime.resources import WorkerPlan
from cluster.training import checkpoint
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData
from cluster.training.rank import Seat, WorkerInput, train_rank
from models.training.loop import Training
from models.training.progress import EpochResult, Progress

_KEPT = 2  # checkpoints: the last may be incomplete


def train(
    given: WorkerInput,
    data: TrainingData,
    plan: WorkerPlan,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochResult], None],
) -> Progress:
    """Train a detector; the result holds the weights of the best epoch.

    An interrupted training resumes from its last checkpoint when it is called again with the same
    `checkpoints`. Raises NonFiniteLoss.
    """
    tables = {"train": data.train, "validation": data.held_back}
    store = checkpoints.storage.child(f"{checkpoints.name}/local")

    def report(training: Training) -> None:
        _save(store, training)
        on_epoch(training.progress.history[-1])

    seat = Seat(
        device=torch.device("cuda" if plan.gpus else "cpu"),
        torch_threads=plan.torch_threads,
        read=lambda name, rows: cut_tables(iter(tables[name]), rows),
        report=report,
        restore=lambda training: _restore(store, training),
    )
    return train_rank(given, seat).progress


def cut_tables(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows` rows; the last may have fewer.

    >>> small = pa.table({"a": [1, 2, 3]})
    >>> [len(table) for table in cut_tables(iter([small, small]), 4)]
    [4, 2]
    """
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += table.num_rows
        if held >= rows:
            whole = pa.concat_tables(waiting)
            for start in range(0, held - rows + 1, rows):
                yield whole.slice(start, rows)
            held %= rows
            waiting = [whole.slice(whole.num_rows - held)] if held else []
    if held:
        yield pa.concat_tables(waiting)


def _save(store: Store, training: Training) -> None:
    """Add a checkpoint. Its facts are written last: without them it does not count."""
    number = len(training.progress.history)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), training)
        for name in checkpoint.FILES:
            store.put(f"{number:06}/{name}", (Path(folder) / name).read_bytes())
    for old in _list_complete(store)[:-_KEPT]:
        store.delete_all(old)


def _restore(store: Store, training: Training) -> None:
    if not (found := _list_complete(store)):
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in checkpoint.FILES:
            (Path(folder) / name).write_bytes(store.read(f"{found[-1]}/{name}"))
        checkpoint.restore(folder, training)


def _list_complete(store: Store) -> list[str]:
    """The folders of complete checkpoints, the oldest first."""
    last = f"/{checkpoint.FILES[-1]}"
    return sorted(f.key.removesuffix(last) for f in store.list() if f.key.endswith(last))
