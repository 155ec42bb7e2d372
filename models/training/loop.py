"""The training loop: epochs of steps, on one rank that is alone or on one of many.

`learn` runs it in this process; `cluster.training.worker` runs it in each DDP worker.
"""

import math
import time
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

# Rows that are scored or validated at once: the activations of a wide network stay small.
_ROWS = 4096


@dataclass(frozen=True)
class Learned:
    """What a training in this process gives back; the detector holds the best epoch's weights."""

    losses: tuple[float, ...]  # held-back loss of each epoch
    best_epoch: int  # counted from 1


@dataclass
class Training:
    """The things that a step changes, and that a checkpoint holds."""

    detector: Detector
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True)
class Ranks:
    """The processes that train one detector together, as one of them sees them.

    The defaults are those of a process that trains alone.
    """

    count: int = 1
    model: nn.Module | None = None  # computes the loss in the detector's place: DDP's wrapper
    add: Callable[[float], float] = float  # the sum of a number over all ranks
    # A backward pass inside of it leaves the gradients on this rank.
    unsynced: Callable[[], AbstractContextManager[None]] = nullcontext


class RowSource(Protocol):
    """The encoded rows of this rank, on the detector's device."""

    def passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        """The training batches of an epoch (from 0): an iterator for each pass over the rows."""

    def held_back(self) -> Iterator[Batch]:
        """The held-back rows, in batches."""

    def nothing(self) -> Batch:
        """One row of zeros, for a step in which this rank has no rows left."""


def learn(
    detector: Detector,
    rows: Batch,
    held_back: Batch,
    options: TrainingOptions,
    on_epoch: Callable[[EpochResult], None] = lambda result: None,
) -> Learned:
    """Train a detector in this process, on the device where its batches lie, and calibrate it.

    The same detector, rows and seed give the same weights on one device. A detector that learns
    from a sample is fitted on the first `sample_rows` of a permutation. Raises NonFiniteLoss.
    """
    generator = torch.Generator().manual_seed(options.seed)
    progress = Progress()
    if detector.learns != "gradient":
        order = torch.randperm(len(rows.numeric), generator=generator)
        chosen = order[: detector.config.sample_rows].sort().values
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
        run_epochs(training, source, options, lambda progress: on_epoch(progress.history[-1]))
        progress = training.progress
        detector.load_state_dict(progress.best)
    detector.eval()
    with torch.no_grad():
        detector.calibrate([held_back])
    return Learned(tuple(r.validation_loss for r in progress.history), progress.best_epoch)


def begin_training(detector: Detector, options: TrainingOptions, rows: int) -> Training:
    """A training that has made no step, with the schedule for this many rows an epoch."""
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
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
    """Train from the first epoch that `training` has not done to the last, or until the
    held-back loss has not fallen for `patience` epochs. All ranks stop together.

    `on_epoch` is called after each epoch. Raises NonFiniteLoss on every rank: NonFiniteElsewhere on
    those whose own loss was finite.
    """
    loop = _Loop(training, source, options, ranks or Ranks())
    for epoch in range(len(training.progress.history), options.epochs):
        result = loop.run_epoch(epoch)
        training.progress = training.progress.add(result, training.detector.state_dict())
        on_epoch(training.progress)
        if result.epoch - training.progress.best_epoch >= options.patience:
            break


class NonFiniteElsewhere(NonFiniteLoss):
    """The loss of another rank was NaN or infinite, and that rank knows why."""


class _Loop:
    """The steps of one rank."""

    def __init__(
        self, training: Training, source: RowSource, options: TrainingOptions, ranks: Ranks
    ) -> None:
        self.training, self.source, self.options, self.ranks = training, source, options, ranks
        self.detector = training.detector
        self.model = ranks.model or training.detector

    def run_epoch(self, epoch: int) -> EpochResult:
        started = time.monotonic()
        train_loss, rows = self._train(epoch)
        seconds = time.monotonic() - started
        validation_loss = measure_held_back_loss(
            self.detector, self.source.held_back(), self.options.trim, self.ranks.add
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
        """The steps of one epoch; the mean training loss and the rows, over all ranks.

        A rank that has run out of rows takes part in the others' steps, so that every rank makes
        the same steps and no row is dropped.
        """
        self.detector.train()
        add, trim = self.ranks.add, self.options.trim
        total_loss, total_kept, own_rows, number = 0.0, 0.0, 0, 0
        for batches in self.source.passes(epoch):
            while True:
                number += 1
                batch = next(batches, None)
                parts = [] if batch is None else cut_batch(batch, self.options.accumulate)
                sizes = [len(part.numeric) for part in parts]
                rows = add(float(sum(count_kept(size, trim) for size in sizes)))
                if rows == 0:
                    break
                total_loss += self._step(parts, rows, f"epoch {epoch + 1}, batch {number}")
                total_kept += rows
                own_rows += sum(sizes)
        return add(total_loss) / max(1.0, total_kept), int(add(float(own_rows)))

    def _step(self, parts: list[Batch], rows: float, place: str) -> float:
        """One update, by the gradient of the mean loss over the `rows` of all ranks that are not
        trimmed; this rank's sum of the loss."""
        training, options = self.training, self.options
        training.optimizer.zero_grad(set_to_none=True)
        every: list[Tensor] = []
        learned: list[Tensor] = []
        empty = not parts
        parts = parts or [self.source.nothing()]
        for index, part in enumerate(parts):
            # Ranks meet once a step, at its last part.
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
        # The check is on the sum over ranks, so that all stop together; with the trimmed rows, as
        # a row whose loss is NaN would be trimmed and forgotten.
        own = sum(map(float, every))
        if not math.isfinite(self.ranks.add(own)):
            if math.isfinite(own):
                raise NonFiniteElsewhere
            raise NonFiniteLoss(
                f"the training loss is not finite at {place}; caused by "
                f"{_find_cause(self.detector, join(parts))}: lower training.learning_rate, or "
                "give that column a range, clip or log1p in the spec"
            )
        nn.utils.clip_grad_norm_(self.detector.parameters(), options.clip_gradient)
        training.optimizer.step()
        training.schedule.step()
        return sum(map(float, learned))


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
    """Rows of this process, in a new order for each pass."""

    def __init__(
        self, rows: Batch, held_back: Batch, most: int, generator: torch.Generator
    ) -> None:
        self.rows, self.rest, self.generator = rows, held_back, generator
        self.batch_rows, self.count = plan_batches(len(rows.numeric), most)

    def passes(self, epoch: int) -> Iterator[Iterator[Batch]]:
        for _ in range(self.count):
            order = torch.randperm(len(self.rows.numeric), generator=self.generator)
            yield (self.rows.take(chosen) for chosen in torch.split(order, self.batch_rows))

    def held_back(self) -> Iterator[Batch]:
        return _chunks(self.rest)

    def nothing(self) -> Batch:
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
    """Mean loss over the rows of all ranks, in evaluation mode, which the detector stays in.

    The highest losses are left out as in training: where one trains on anomalies, they are held
    back too. `add` sums a number over all ranks.
    """
    detector.eval()
    total, count = 0.0, 0
    for batch in batches:
        losses = drop_highest(detector.loss(batch).double(), trim)
        total, count = total + float(losses.sum()), count + len(losses)
    return add(total) / max(1.0, add(float(count)))


@torch.inference_mode()
def score_rows(detector: Detector, rows: Batch) -> Tensor:
    """Scores of the rows, float32 [rows] on the CPU, a few thousand rows at a time."""
    parts = [detector.score(chunk).float().cpu() for chunk in _chunks(rows)]
    return torch.cat(parts) if parts else torch.empty(0)
