"""What runs in each worker of a training over a cluster: one DDP rank."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.train
import ray.train.torch

from cluster.training import checkpoint
from cluster.training.rank import Seat, train_rank
from models.training.loop import NonFiniteElsewhere, Training
from models.training.options import NonFiniteLoss


def train_worker(config: dict[str, Any]) -> None:
    """Train on one DDP rank; `cluster.training.trainer` makes the `config`.

    A loss that is not finite is posted on the board and raises no error: Ray Train would restart
    the workers, and the same rows would give the same loss.
    """
    context, board = ray.train.get_context(), config["board"]
    rank = context.get_world_rank()

    def report(training: Training) -> None:
        _report(training, rank)
        if rank == 0:
            ray.get(board.pin.remote(training.progress.history[-1]))

    seat = Seat(
        device=ray.train.torch.get_device(),
        torch_threads=config["torch_threads"],
        read=_read,
        report=report,
        restore=_restore,
        rank=rank,
        ranks=context.get_world_size(),
    )
    try:
        train_rank(config["input"], seat)
    except NonFiniteElsewhere:
        return
    except NonFiniteLoss as refusal:
        ray.get(board.refuse.remote(str(refusal)))


def _read(name: str, rows: int) -> Iterator[pa.Table]:
    shard = ray.train.get_dataset_shard(name)
    yield from shard.iter_batches(batch_size=rows, batch_format="pyarrow", prefetch_batches=2)


def _restore(training: Training) -> None:
    if (saved := ray.train.get_checkpoint()) is not None:
        with saved.as_directory() as folder:
            checkpoint.restore(folder, training)


def _report(training: Training, rank: int) -> None:
    """Report the epoch to Ray Train, where all ranks meet; the first one adds the checkpoint."""
    metrics = asdict(training.progress.history[-1])
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), training)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
