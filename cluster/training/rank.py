"""One rank of a training: alone in this process, or one of many that DDP joins."""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from cluster.runtime.threads import set_torch_threads
from cluster.training.row_tables import from_table
from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch, join
from models.training.loop import Ranks, Training, begin_training, run_epochs
from models.training.memory import encode_zeros, find_largest_step
from models.training.options import TrainingOptions, plan_batches

# A worker keeps its share of the rows in memory if it is below this many bytes: streaming it again
# costs 1 to 2 s an epoch, however small it is.
_KEPT_BYTES = 512 * 1024**2
# Batches of rows that a worker takes at once and shuffles: more mix the splits better
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


Reports = Callable[[Training], None]  # at the end of each epoch
ReadTables = Callable[[str, int], Iterator[pa.Table]]  # of "train" or "validation", in such rows


@dataclass(frozen=True)
class Seat:
    """What a rank has of its own."""

    device: torch.device
    torch_threads: int
    read: ReadTables  # this rank's rows of one pass
    report: Reports
    restore: Callable[[Training], None]  # sets the training to its last checkpoint, if it has one
    rank: int = 0
    ranks: int = 1


def train_rank(given: WorkerInput, seat: Seat) -> Training:
    """Train on one rank, all epochs that are left. Raises NonFiniteLoss."""
    options, device = given.training, seat.device
    set_torch_threads(seat.torch_threads)
    encoder: Encoder = copy.deepcopy(given.encoder).to(device).eval()
    detector = given.build_detector(device)
    torch.manual_seed(options.seed + seat.rank)
    training = begin_training(detector, options, given.rows)
    seat.restore(training)
    ranks = _join_ranks(detector, seat.ranks, device)
    most, passes = plan_batches(given.rows, options.batch_rows)
    batch_rows = max(1, most // seat.ranks)
    source = _StreamedRows(encoder, batch_rows, passes, seat, options.seed, ranks.add)
    parts = _count_parts(given, detector, batch_rows, device)
    run_epochs(
        training,
        source,
        replace(options, accumulate=parts),
        lambda progress: seat.report(training),
        ranks,
    )
    return training


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


Buffer = tuple[RawBatch, Tensor]  # rows and their labels, float32 [rows]


@dataclass
class _Share:
    """This rank's share of a dataset, in buffers of rows; kept in memory if it is small."""

    name: str
    buffer_rows: int
    read_tables: ReadTables
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
        for table in self.read_tables(self.name, self.buffer_rows):
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
    """The `RowSource` of one rank: its shares of the rows, encoded on its device."""

    def __init__(
        self,
        encoder: Encoder,
        batch_rows: int,
        passes: int,
        seat: Seat,
        seed: int,
        add: Callable[[float], float],
    ) -> None:
        self.encoder, self.device = encoder, seat.device
        self.batch_rows, self.count, self.seed = batch_rows, passes, (seed, seat.rank)
        self.train, self.validation = (
            _Share(name, batch_rows * _SHUFFLE_BATCHES, seat.read, add)
            for name in ("train", "validation")
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
            order = np.arange(len(label))
            if generator is not None:
                order = generator.permutation(len(label))
            for start in range(0, len(label), self.batch_rows):
                chosen = order[start : start + self.batch_rows]
                batch: Batch = self.encoder(rows.take(chosen))
                yield batch._replace(label=label[chosen].to(self.device))
