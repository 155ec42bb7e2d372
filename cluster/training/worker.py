"""What runs in each worker of a training: one DDP rank."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cluster.runtime.threads import set_torch_threads
from cluster.training import checkpoint
from cluster.training.row_tables import from_table
from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch, join
from models.training.loop import NonFiniteElsewhere, Ranks, Training, begin_training, run_epochs
from models.training.memory import encode_zeros, find_largest_step
from models.training.options import NonFiniteLoss, TrainingOptions, plan_batches
from models.training.progress import Progress

# A worker keeps its share of the rows in memory if it is below this many bytes: streaming it again
# costs 1 to 2 s an epoch, however small it is.
_KEPT_BYTES = 512 * 1024**2
# Batches of rows that a worker takes from Ray Data at once and shuffles: more mix the splits better
# and need more memory.
_SHUFFLE_BATCHES = 16


@dataclass(frozen=True)
class ClassBalance:
    """The labels of the training rows of all ranks, for `Detector.prepare`."""

    positive: int  # rows that are labelled as anomalies
    rows: int


@dataclass(frozen=True)
class WorkerInput:
    """What every worker of a training is given."""

    encoder: Encoder
    detector: str  # its name in the catalogue
    options: Mapping[str, Any]  # of the detector
    training: TrainingOptions
    rows: int  # training rows of all workers
    balance: ClassBalance | None = None  # for a detector that learns from all labels
    shown: Batch | None = None  # labelled anomalies, for a detector that learns from some
    start: Mapping[str, Tensor] | None = None  # weights to start from, instead of random ones
    most_rows: int | None = None  # rows that a CPU worker has memory for; a GPU is measured

    def build_detector(self, device: torch.device) -> Detector:
        """The detector before its first step: the same on every rank."""
        torch.manual_seed(self.training.seed)
        detector = CATALOG.build(self.detector, self.encoder.layout, dict(self.options)).to(device)
        if self.start is not None:
            detector.load_state_dict(self.start)
        if self.balance is not None:
            detector.prepare(self.balance.positive, self.balance.rows)
        if self.shown is not None:
            detector.show(self.shown.to(device))
        return detector


def train_worker(config: dict[str, Any]) -> None:
    """Train on one DDP rank; `cluster.training.trainer` makes the `config`.

    A loss that is not finite is posted on the board and raises no error: Ray Train would restart
    the workers, and the same rows would give the same loss.
    """
    try:
        _train(config["input"], config["board"], config["torch_threads"])
    except NonFiniteElsewhere:
        return
    except NonFiniteLoss as refusal:
        ray.get(config["board"].refuse.remote(str(refusal)))


def _train(given: WorkerInput, board: Any, torch_threads: int) -> None:
    context, options = ray.train.get_context(), given.training
    rank, world = context.get_world_rank(), context.get_world_size()
    set_torch_threads(torch_threads)
    device = ray.train.torch.get_device()
    encoder: Encoder = given.encoder.to(device).eval()
    detector = given.build_detector(device)
    torch.manual_seed(options.seed + rank)
    training = begin_training(detector, options, given.rows)
    if (saved := ray.train.get_checkpoint()) is not None:
        with saved.as_directory() as folder:
            checkpoint.restore(folder, training)
    ranks = _join_ranks(detector, world, device)
    most, passes = plan_batches(given.rows, options.batch_rows)
    batch_rows = max(1, most // world)
    source = _StreamedRows(encoder, device, batch_rows, passes, (options.seed, rank), ranks.add)
    parts = _count_parts(given, detector, batch_rows, device)

    def report(progress: Progress) -> None:
        _report(training, rank)
        if rank == 0:
            ray.get(board.pin.remote(progress.history[-1]))

    run_epochs(training, source, replace(options, accumulate=parts), report, ranks)


def _join_ranks(detector: Detector, world: int, device: torch.device) -> Ranks:
    if world == 1:
        return Ranks()
    model = DistributedDataParallel(detector, broadcast_buffers=False)

    def add(value: float) -> float:
        tensor = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(tensor)
        return float(tensor)

    return Ranks(world, model, add, model.no_sync)


def _count_parts(
    given: WorkerInput, detector: Detector, batch_rows: int, device: torch.device
) -> int:
    """The number of parts in which this rank computes its share of a batch, so that it fits the
    memory. Ranks may differ, as the gradient does not depend on the parts."""
    most_rows = given.most_rows
    if device.type == "cuda":
        most_rows = find_largest_step(given.encoder, detector, batch_rows, device)
    needed = 1 if most_rows is None else math.ceil(batch_rows / max(1, most_rows))
    return max(given.training.accumulate, needed)


def _report(training: Training, rank: int) -> None:
    """Report the epoch to Ray Train, where all ranks meet; the first one adds the checkpoint."""
    metrics = asdict(training.progress.history[-1])
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), training)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


Buffer = tuple[RawBatch, Tensor]  # rows and their labels, float32 [rows]


@dataclass
class _Share:
    """This rank's share of a dataset, in buffers of rows; kept in memory if it is small."""

    name: str
    buffer_rows: int
    add: Callable[[float], float]  # sums a number over all ranks
    kept: list[Buffer] | None = field(default_factory=list)  # None if it is streamed each time
    passes: int = 0

    def read(self) -> Iterator[Buffer]:
        """The rows of one pass. All ranks begin a pass together."""
        self.passes += 1
        if self.passes == 2:
            self._settle()
        if self.passes > 1 and self.kept is not None:
            yield from self.kept
            return
        held = 0
        shard = ray.train.get_dataset_shard(self.name)
        for table in shard.iter_batches(
            batch_size=self.buffer_rows, batch_format="pyarrow", prefetch_batches=2
        ):
            buffer = from_table(table)
            held += buffer[0].nbytes
            if self.kept is not None:
                self.kept.append(buffer)
                if held > _KEPT_BYTES:
                    self.kept = None
            yield buffer

    def _settle(self) -> None:
        """Keep the share if all ranks do: a pass of `streaming_split` waits for every rank."""
        if self.add(float(self.kept is None)) > 0:
            self.kept = None
        elif self.kept:
            rows, labels = zip(*self.kept, strict=True)
            self.kept = [(join(rows), torch.cat(labels))]


class _StreamedRows:
    """The `RowSource` of one rank: its shares of Ray's datasets, encoded on its device."""

    def __init__(
        self,
        encoder: Encoder,
        device: torch.device,
        batch_rows: int,
        passes: int,
        seed: tuple[int, int],  # of the training, and the rank
        add: Callable[[float], float],
    ) -> None:
        self.encoder, self.device = encoder, device
        self.batch_rows, self.count, self.seed = batch_rows, passes, seed
        self.train, self.validation = (
            _Share(name, batch_rows * _SHUFFLE_BATCHES, add) for name in ("train", "validation")
        )

    def read_passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        seed, rank = self.seed
        generator = np.random.default_rng((seed, epoch, rank))
        for _ in range(self.count):
            yield self._batches(self.train, generator)

    def read_held_back(self) -> Iterator[Batch]:
        return self._batches(self.validation, None)

    def make_padding(self) -> Batch:
        return encode_zeros(self.encoder, 1, self.device)

    def _batches(self, share: _Share, generator: np.random.Generator | None) -> Iterator[Batch]:
        """Encoded batches, shuffled within each buffer if there is a generator."""
        for rows, label in share.read():
            order = torch.arange(len(label))
            if generator is not None:
                order = torch.from_numpy(generator.permutation(len(label)))
            for start in range(0, len(label), self.batch_rows):
                chosen = order[start : start + self.batch_rows]
                batch: Batch = self.encoder(rows.take(chosen).to(self.device))
                yield batch._replace(label=label[chosen].to(self.device))
