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
from models.batch import Batch, join
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.training.loop import Ranks, Training, begin_training, run_epochs
from models.training.memory import encode_zeros, find_largest_step, find_room
from models.training.options import TrainingOptions, plan_batches
from models.training.threads import limit_threads

# A worker keeps its share of the rows, encoded, in memory if it is below this many bytes: streaming
# it again costs 1 to 2 s an epoch, however small it is. On a GPU it is a share of what is free
# beside a step: two datasets, each for a moment twice, and something is lost between blocks.
_KEPT_BYTES = 1024**3
_GPU_SHARE = 0.2
_COUNTED_ROWS = 32  # whose operations are counted, to choose the threads
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
    parts = _count_parts(given, detector, batch_rows, device)
    rows = math.ceil(batch_rows / parts)
    room = _KEPT_BYTES
    if device.type == "cuda":
        room = int(_GPU_SHARE * find_room(encoder, detector, rows, device))
    source = StreamedRows(encoder, batch_rows, passes, seat, options.seed, ranks.add, room)
    with limit_threads(detector, encode_zeros(encoder, _COUNTED_ROWS, device), rows):
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
    # Counts are added up on the CPU: the GPU is not waited for.
    group = dist.new_group(backend="gloo") if device.type == "cuda" else None

    def add(value: float) -> float:
        tensor = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(tensor, group=group)
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


@dataclass(frozen=True)
class _Buffer:
    """Some rows with their labels, on the device."""

    rows: Batch  # not scaled yet if there is an encoder
    encoder: Encoder | None = None

    def take(self, chosen: Tensor | slice) -> Batch:
        """The encoded rows at the given places."""
        rows = self.rows.take(chosen)
        return rows if self.encoder is None else _encode(self.encoder, rows)


def _encode(encoder: Encoder, raw: Batch) -> Batch:
    encoded = encoder.scale(raw.numeric, raw.codes, raw.signals, raw.tokens)
    return encoded._replace(label=raw.label)


def _move(raw: RawBatch, label: Tensor, device: torch.device) -> Batch:
    """Raw rows on the device. To a GPU they go by pinned memory, beside its work."""
    signals, tokens = (tuple(map(torch.from_numpy, each)) for each in (raw.signals, raw.tokens))
    values, codes = torch.from_numpy(raw.values), torch.from_numpy(raw.codes)
    rows = Batch(values, codes, label, signals, tokens)
    if device.type == "cuda":
        return rows.map(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
    return rows.to(device)


@dataclass
class _Share:
    """This rank's share of a dataset, in buffers; kept on the device, encoded, if it fits."""

    name: str
    buffer_rows: int
    read_tables: ReadTables
    encoder: Encoder
    device: torch.device
    add: Callable[[float], float]  # sums a number over all ranks
    room: int  # bytes that may be kept
    kept: list[Batch] | None = field(default_factory=list)  # None if it is streamed each time
    passes: int = 0

    def read(self) -> Iterator[_Buffer]:
        """The rows of one pass. All ranks begin a pass together."""
        self.passes += 1
        if self.passes == 2:
            self._settle()
        if self.passes > 1 and self.kept is not None:
            yield from map(_Buffer, self.kept)
            return
        held = 0
        for table in self.read_tables(self.name, self.buffer_rows):
            rows = _move(*from_table(table), self.device)
            held += len(rows.numeric) * self.encoder.bytes_per_row
            if held > self.room:
                self.kept = None
            if self.kept is None:
                yield _Buffer(rows, self.encoder)
                continue
            self.kept.append(_encode(self.encoder, rows))
            yield _Buffer(self.kept[-1])

    def _settle(self) -> None:
        """Keep the share if all ranks do: a pass of `streaming_split` waits for every rank."""
        if self.add(float(self.kept is None)) > 0:
            self.kept = None
        elif self.kept:
            self.kept = [join(self.kept)]


class StreamedRows:
    """The `RowSource` of one rank: its shares of the rows, encoded on its device."""

    def __init__(
        self,
        encoder: Encoder,
        batch_rows: int,
        passes: int,
        seat: Seat,
        seed: int,
        add: Callable[[float], float],
        room: int,
    ) -> None:
        self.encoder, self.device = encoder, seat.device
        self.batch_rows, self.count, self.seed = batch_rows, passes, (seed, seat.rank)
        rows = batch_rows * _SHUFFLE_BATCHES
        self.train, self.validation = (
            _Share(name, rows, seat.read, encoder, seat.device, add, room)
            for name in ("train", "validation")
        )

    def read_passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        seed, rank = self.seed
        generator = np.random.default_rng((seed, epoch, rank))
        for _ in range(self.count):
            yield self._shuffle(generator)

    def read_held_back(self) -> Iterator[Batch]:
        for buffer in self.validation.read():
            for start in range(0, len(buffer.rows.numeric), self.batch_rows):
                yield buffer.take(slice(start, start + self.batch_rows))

    def make_padding(self) -> Batch:
        return encode_zeros(self.encoder, 1, self.device)

    def _shuffle(self, generator: np.random.Generator) -> Iterator[Batch]:
        """Encoded training batches, shuffled within each buffer."""
        for buffer in self.train.read():
            order = torch.from_numpy(generator.permutation(len(buffer.rows.numeric)))
            for chosen in torch.split(order.to(self.device), self.batch_rows):
                yield buffer.take(chosen)
