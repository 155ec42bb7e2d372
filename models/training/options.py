"""Options of a training, and the schedule that follows from them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from models.batch import Batch
from models.refusal import Refusal

# Small data needs enough steps an epoch (docs/decisions/small-data-batches.md).
_STEPS_AN_EPOCH, _LEAST_BATCH = 100, 32


@dataclass(frozen=True)
class TrainingOptions:
    """How a gradient-trained detector is trained."""

    epochs: int = 30
    batch_rows: int = 1024  # of all workers together; fewer for small data
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05  # share of all steps over which the learning rate rises
    patience: int = 5  # epochs without a better validation loss before stopping
    clip_gradient: float = 1.0  # largest norm of the gradient
    # Share of each batch that is left out, the rows of highest loss: twice the share of anomalies
    # in the training rows (docs/decisions/trimmed-loss.md).
    trim: float = 0.0
    accumulate: int = 1  # parts of a batch that are computed one after another, to save memory
    seed: int = 0
    max_failures: int = 3  # how often lost workers are replaced


class NonFiniteLoss(Refusal):
    """The loss was NaN or infinite; the message names epoch, batch and feature."""


def plan_batches(rows: int, most: int) -> tuple[int, int]:
    """Rows a batch (at most `most`) and passes an epoch, for a number of training rows.

    >>> plan_batches(1_000_000, 1024), plan_batches(320, 1024)
    ((1024, 1), (32, 10))
    """
    batch = max(_LEAST_BATCH, min(most, rows // _STEPS_AN_EPOCH))
    steps = max(1, math.ceil(rows / batch))
    return batch, math.ceil(_STEPS_AN_EPOCH / steps) if steps < _STEPS_AN_EPOCH // 2 else 1


def count_kept(rows: int, trim: float) -> int:
    """Number of rows that `drop_highest` keeps: at least one."""
    return rows - int(rows * trim)


def drop_highest(losses: Tensor, trim: float) -> Tensor:
    """The losses [rows] without the highest, a share of `trim`, in any order. Differentiable."""
    if not trim:
        return losses
    return losses.topk(count_kept(len(losses), trim), largest=False, sorted=False).values


def cut_batch(batch: Batch, count: int) -> list[Batch]:
    """Cut the batch into at most `count` parts of about the same size; no part is empty."""
    rows = len(batch.numeric)
    size = max(1, math.ceil(rows / count))
    return [batch.take(slice(start, start + size)) for start in range(0, rows, size)]


def make_schedule(options: TrainingOptions, steps: int) -> Callable[[int], float]:
    """The factor of the learning rate at each step, for `steps` an epoch: a linear warm-up, then
    half a cosine down to a hundredth (Loshchilov and Hutter, ICLR 2017, "SGDR", equation 5)."""
    total = steps * options.epochs
    warm = max(1, int(total * options.warmup))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, total - warm))
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2

    return factor
