"""The training loop: epochs of steps, on one process that is alone or on one rank of many.

`learn` runs it in this process; `cluster.training.worker` runs it in each DDP worker.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from models.batch import Batch, join
from models.detectors.detector import Detector
from models.training.options import (
    NonFiniteLoss,
    TrainingOptions,
    count_kept,
    cut_batch,
    drop_highest,
    make_schedule,
    plan_batches,
)
from models.training.progress import EpochResult, Progress
from models.training.threads import limit_threads

# Rows that are scored or validated at once: the activations of a wide network stay small.
_ROWS = 4096
# Steps after which a GPU's losses are read: to read the last one would wait for the device.
_UNREAD = 8


@dataclass(frozen=True)
class Learned:
    """The result of `learn`; the detector holds the weights of the best epoch."""

    losses: tuple[float, ...]  # held-back loss of each epoch
    best_epoch: int  # counted from 1


@dataclass
class Training:
    """The state of a training: what a step changes, and what a checkpoint holds."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Ranks:
    """The processes that train one detector together, and how they meet.

    The defaults are for a process that trains alone.
    """

    count: int = 1
    model: nn.Module | None = None  # DDP's wrapper of the detector; None for the detector itself
    add: Callable[[float], float] = float  # sums a number over all ranks
    # A context in which a backward pass does not exchange gradients.
    unsynced: Callable[[], AbstractContextManager[None]] = nullcontext


class RowSource(Protocol):
    """The encoded rows of this rank, on the detector's device."""

    def read_passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        """The training batches of an epoch (from 0): an iterator for each pass over the rows."""

    def read_held_back(self) -> Iterator[Batch]:
        """The held-back rows, in batches."""

    def make_padding(self) -> Batch:
        """One row of zeros, for a step in which this rank has no rows left."""


def learn(
    detector: Detector,
    rows: Batch,
    held_back: Batch,
    options: TrainingOptions,
    on_epoch: Callable[[EpochResult], None] = lambda result: None,
) -> Learned:
    """Train a detector in this process, on the device of its batches, and calibrate it.

    The same detector, rows and seed give the same weights on one device. A detector that learns
    from a sample is fitted on the first `sample_rows` of a permutation. Raises NonFiniteLoss.

    >>> from models.layout import Layout, NumericInput
    >>> from models.detectors.catalog import CATALOG
    >>> detector = CATALOG.build("autoencoder", Layout((NumericInput("bytes", "real"),), ()), {})
    >>> rows = Batch(torch.randn(300, 1), torch.empty(300, 0, dtype=torch.int64))
    >>> len(learn(detector, rows, rows, TrainingOptions(epochs=2)).losses)
    2
    """
    generator = torch.Generator().manual_seed(options.seed)
    progress = Progress()
    if detector.learns != "gradient":
        order = torch.randperm(len(rows.numeric), generator=generator)
        chosen = order[: detector.config.sample_rows].sort().values.to(rows.numeric.device)
        detector.fit(rows.take(chosen)._replace(label=None), options.seed)
    if detector.learns != "sample":
        if detector.labels != "none":
            assert rows.label is not None
            anomalies = rows.label > 0.5
            if detector.labels == "all":
                detector.prepare(int(anomalies.sum()), len(anomalies))
            else:
                detector.show(rows.take(anomalies))
        torch.manual_seed(options.seed)  # for what a loss draws
        training = begin_training(detector, options, len(rows.numeric))
        source = _RowsInMemory(rows, held_back, options.batch_rows, generator)
        with limit_threads(detector, rows, source.batch_rows):
            run_epochs(training, source, options, lambda progress: on_epoch(progress.history[-1]))
        progress = training.progress
        detector.load_state_dict(progress.best)
    detector.eval()
    with torch.no_grad():
        detector.calibrate([held_back])
    return Learned(tuple(r.validation_loss for r in progress.history), progress.best_epoch)


def begin_training(detector: Detector, options: TrainingOptions, rows: int) -> Training:
    """A training before its first step, with the schedule for a number of training rows."""
    parameters = list(detector.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in parameters),
    )
    batch_rows, passes = plan_batches(rows, options.batch_rows)
    steps = passes * max(1, math.ceil(rows / batch_rows))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, make_schedule(options, steps))
    return Training(detector, optimizer, schedule)


def run_epochs(
    training: Training,
    source: RowSource,
    options: TrainingOptions,
    on_epoch: Callable[[Progress], None],
    ranks: Ranks | None = None,
) -> None:
    """Run the epochs that `training` has not done yet, until the held-back loss has not fallen for
    `patience` epochs. All ranks stop together.

    `on_epoch` is called after each epoch. Raises NonFiniteLoss on all ranks if the loss is NaN or
    infinite on one of them: NonFiniteElsewhere on the others.
    """
    loop = _Loop(training, source, options, ranks or Ranks())
    for epoch in range(len(training.progress.history), options.epochs):
        result = loop.run_epoch(epoch)
        training.progress = training.progress.add(result, training.detector.state_dict())
        on_epoch(training.progress)
        if result.epoch - training.progress.best_epoch >= options.patience:
            break


class NonFiniteElsewhere(NonFiniteLoss):
    """The loss of another rank was NaN or infinite; that rank raises the reason."""


class _Number:
    """A number on its way from a device: only `read` waits for it, and for nothing after it."""

    def __init__(self, value: Tensor) -> None:
        self.value, self.arrived = value, None
        if value.device.type == "cpu":
            return
        cuda = value.device.type == "cuda"
        self.value = torch.empty((), dtype=value.dtype, pin_memory=cuda)
        self.value.copy_(value, non_blocking=True)
        if cuda:
            self.arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.arrived.record()

    def read(self) -> float:
        if self.arrived is not None:
            self.arrived.synchronize()
        return float(self.value)


class _Loop:
    """The steps of one rank."""

    def __init__(
        self, training: Training, source: RowSource, options: TrainingOptions, ranks: Ranks
    ) -> None:
        self.training, self.source, self.options, self.ranks = training, source, options, ranks
        self.detector = training.detector
        self.model = ranks.model or training.detector
        # Losses that were not read yet, with the parts of the batch and its place.
        self.unread: deque[tuple[_Number, list[Batch], str]] = deque()
        self.start: dict[str, Tensor] = {}  # weights at the start of the epoch, of a GPU

    def run_epoch(self, epoch: int) -> EpochResult:
        started = time.monotonic()
        train_loss, rows = self._train(epoch)
        seconds = time.monotonic() - started
        validation_loss = measure_held_back_loss(
            self.detector, self.source.read_held_back(), self.options.trim, self.ranks.add
        )
        if not math.isfinite(validation_loss):
            raise NonFiniteLoss(f"the validation loss of epoch {epoch + 1} is {validation_loss}")
        return EpochResult(
            epoch=epoch + 1,
            train_loss=train_loss,
            validation_loss=validation_loss,
            learning_rate=self.training.optimizer.param_groups[0]["lr"],
            rows_per_second=rows / max(seconds, 1e-9),
        )

    def _train(self, epoch: int) -> tuple[float, int]:
        """Make the steps of one epoch; the mean training loss and the rows, over all ranks.

        A rank without rows takes part in the steps of the others, so that all make the same steps
        and no row is dropped.
        """
        self.detector.train()
        add, trim = self.ranks.add, self.options.trim
        state = self.detector.state_dict()
        self.start = {name: t.clone() for name, t in state.items() if t.device.type != "cpu"}
        total_loss: Tensor | float = 0.0
        total_kept, own_rows, number = 0.0, 0, 0
        for batches in self.source.read_passes(epoch):
            while True:
                number += 1
                batch = next(batches, None)
                parts = [] if batch is None else cut_batch(batch, self.options.accumulate)
                sizes = [len(part.numeric) for part in parts]
                rows = add(float(sum(count_kept(size, trim) for size in sizes)))
                if rows == 0:
                    break
                loss = self._step(parts, rows, f"epoch {epoch + 1}, batch {number}")
                total_loss = total_loss + loss
                total_kept += rows
                own_rows += sum(sizes)
        self._read_losses(0)
        return add(float(total_loss)) / max(1.0, total_kept), int(add(float(own_rows)))

    def _step(self, parts: list[Batch], rows: float, place: str) -> Tensor:
        """Make one step with the gradient of the mean loss, over the `rows` of all ranks that are
        not trimmed; the sum of this rank's losses."""
        training, options = self.training, self.options
        training.optimizer.zero_grad(set_to_none=True)
        every: list[Tensor] = []
        learned: list[Tensor] = []
        empty = not parts
        parts = parts or [self.source.make_padding()]
        for index, part in enumerate(parts):
            # Ranks exchange gradients once a step, in its last part.
            with self.ranks.unsynced() if index + 1 < len(parts) else nullcontext():
                cuda = part.numeric.device.type == "cuda"
                with torch.autocast("cuda", torch.bfloat16, enabled=cuda):
                    per_row: Tensor = self.model(part)
                per_row = per_row.float()
                total = drop_highest(per_row, options.trim).sum()
                if empty:
                    total, per_row = total * 0.0, per_row * 0.0
                (total * self.ranks.count / rows).backward()  # type: ignore[no-untyped-call]
            every.append(per_row.detach().sum())
            learned.append(total.detach())
        # With the trimmed rows: a row whose loss is NaN is trimmed.
        self.unread.append((_Number(torch.stack(every).sum()), parts, place))
        self._read_losses(_UNREAD if every[0].device.type != "cpu" else 0)
        nn.utils.clip_grad_norm_(self.detector.parameters(), options.clip_gradient)
        training.optimizer.step()
        training.schedule.step()
        return torch.stack(learned).double().sum()

    def _read_losses(self, left: int) -> None:
        """Read the losses of all steps but the last `left`. Raises NonFiniteLoss if one is not
        finite, on all ranks, as the sum over them is read."""
        while len(self.unread) > left:
            loss, parts, place = self.unread.popleft()
            own = loss.read()
            if math.isfinite(self.ranks.add(own)):
                continue
            if math.isfinite(own):
                raise NonFiniteElsewhere
            if self.start:  # the weights have learned from this loss
                self.detector.load_state_dict(self.start, strict=False)
            raise NonFiniteLoss(
                f"the training loss is not finite at {place}; caused by "
                f"{_find_cause(self.detector, join(parts))}: lower training.learning_rate, or "
                "give that column a range, clip or log1p in the spec"
            )


@torch.no_grad()
def _find_cause(detector: Detector, batch: Batch) -> str:
    """The feature that made the loss of a batch non-finite."""
    bad = ~torch.isfinite(batch.numeric)
    if bad.any():
        return detector.layout.numeric[int(bad.any(0).nonzero()[0])].name
    odd = ~torch.isfinite(detector.contributions(batch).shares)
    column = odd.any(0).nonzero()
    return (
        detector.layout.features[int(column[0])] if len(column) else "the weights (they diverged)"
    )


class _RowsInMemory:
    """The `RowSource` of `learn`: rows in a new order for each pass."""

    def __init__(
        self, rows: Batch, held_back: Batch, most: int, generator: torch.Generator
    ) -> None:
        self.rows, self.rest, self.generator = rows, held_back, generator
        self.batch_rows, self.count = plan_batches(len(rows.numeric), most)

    def read_passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        for _ in range(self.count):
            order = torch.randperm(len(self.rows.numeric), generator=self.generator)
            order = order.to(self.rows.numeric.device)
            yield (self.rows.take(chosen) for chosen in torch.split(order, self.batch_rows))

    def read_held_back(self) -> Iterator[Batch]:
        return _chunks(self.rest)

    def make_padding(self) -> Batch:
        raise AssertionError("a rank that is alone has rows in each of its steps")


def _chunks(rows: Batch) -> Iterator[Batch]:
    for start in range(0, len(rows.numeric), _ROWS):
        yield rows.take(slice(start, start + _ROWS))


@torch.no_grad()
def measure_held_back_loss(
    detector: Detector,
    batches: Iterable[Batch],
    trim: float = 0.0,
    add: Callable[[float], float] = float,
) -> float:
    """Mean loss over the rows of all ranks. Leaves the detector in evaluation mode.

    The highest losses are left out as in training, since held-back rows hold anomalies too. `add`
    sums a number over all ranks.
    """
    detector.eval()
    total: Tensor | float = 0.0
    count = 0
    for batch in batches:
        losses = drop_highest(detector.loss(batch).double(), trim)
        total, count = total + losses.sum(), count + len(losses)
    return add(float(total)) / max(1.0, add(float(count)))


@torch.inference_mode()
def score_rows(detector: Detector, rows: Batch) -> Tensor:
    """Score the rows, a few thousand at a time: float32 [rows] on the CPU."""
    parts = [detector.score(chunk).float().cpu() for chunk in _chunks(rows)]
    return torch.cat(parts) if parts else torch.empty(0)
