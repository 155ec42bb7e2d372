"""Learning by gradient: the options and the schedule that every loop shares, and a loop for one
device. `cluster.training` has the loop over many.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.detector import Batch, Detector
from models.refusal import Refusal

# Small data takes smaller batches, down to the least, and several passes an epoch, so that an
# epoch makes enough steps: 1,700 flows in batches of 1,024 gave 60 steps in 30 epochs, and AUROC
# 0.93 on cicids2017_flows where the principal components had 0.96.
_STEPS_AN_EPOCH, _LEAST_BATCH = 100, 32
# Rows that are scored or validated at once: the activations of a wide network stay small.
_ROWS = 4096


@dataclass(frozen=True)
class TrainingOptions:
    """How a gradient-trained detector is trained."""

    epochs: int = 30
    batch_rows: int = 1024  # of all workers together, at most; small data takes smaller batches
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05  # share of all steps over which the learning rate rises
    patience: int = 5  # epochs without a better validation loss before stopping
    clip_gradient: float = 1.0  # largest norm of the gradient
    # Share of each batch, those with the highest loss, that is not learned from (Shen and Sanghavi,
    # ICML 2019, "Learning with Bad Training Data via Iterative Trimmed Loss Minimization"): for
    # training rows with anomalies among them, about their share. At most a half.
    trim: float = 0.0
    accumulate: int = 1  # parts that a batch is computed in, one after another, to save memory
    seed: int = 0
    max_failures: int = 3  # times that lost workers are replaced


class NonFiniteLoss(Refusal):
    """The loss was NaN or infinite; the message names epoch, batch and feature."""


@dataclass(frozen=True)
class Learned:
    """What a learning gives back; the detector holds the best epoch's weights."""

    losses: tuple[float, ...]  # held-back loss of each epoch
    best_epoch: int  # from 1


def batches_of(rows: int, most: int) -> tuple[int, int]:
    """(rows a batch, passes an epoch) for so many training rows."""
    batch = max(_LEAST_BATCH, min(most, rows // _STEPS_AN_EPOCH))
    steps = max(1, math.ceil(rows / batch))
    return batch, math.ceil(_STEPS_AN_EPOCH / steps) if steps < _STEPS_AN_EPOCH // 2 else 1


def kept(rows: int, trim: float) -> int:
    """How many of so many rows `trimmed` keeps: at least one of any."""
    return rows - int(rows * trim)


def trimmed(losses: Tensor, trim: float) -> Tensor:
    """The losses but for the highest, a share of `trim`, in any order; gradients pass."""
    if not trim:
        return losses
    return losses.topk(kept(len(losses), trim), largest=False, sorted=False).values


def parts_of(batch: Batch, count: int) -> list[Batch]:
    """The batch in at most `count` parts of about the same size, none of them empty."""
    rows = len(batch.numeric)
    size = max(1, math.ceil(rows / count))
    return [batch.take(slice(start, start + size)) for start in range(0, rows, size)]


def rate(options: TrainingOptions, steps: int) -> Callable[[int], float]:
    """Linear warm-up, then half a cosine down to a hundredth (Loshchilov & Hutter, 2017), over
    `steps` an epoch: the factor of the learning rate at each step."""
    total = steps * options.epochs
    warm = max(1, int(total * options.warmup))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, total - warm))
        return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2

    return factor


def learn(
    detector: Detector,
    rows: Batch,
    held_back: Batch,
    options: TrainingOptions,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Learned:
    """Train a detector in this process, on the device where its batches lie, and calibrate it.

    The same detector, rows and seed give the same weights on one device. A detector that learns
    from a sample is fitted on the first `sample_rows` of a permutation. Raises NonFiniteLoss.
    """
    generator = torch.Generator().manual_seed(options.seed)
    losses: list[float] = []
    best_epoch = 0
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
        losses, best_epoch = _epochs(detector, rows, held_back, options, generator, on_epoch)
    detector.eval()
    with torch.no_grad():
        detector.calibrate([held_back])
    return Learned(tuple(losses), best_epoch)


def _epochs(
    detector: Detector,
    rows: Batch,
    held_back: Batch,
    options: TrainingOptions,
    generator: torch.Generator,
    on_epoch: Callable[[int, float], None],
) -> tuple[list[float], int]:
    torch.manual_seed(options.seed)  # for what a loss draws
    optimizer = torch.optim.AdamW(
        detector.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    batch_rows, passes = batches_of(len(rows.numeric), options.batch_rows)
    steps = passes * math.ceil(len(rows.numeric) / batch_rows)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate(options, steps))
    losses: list[float] = []
    best = copy.deepcopy(detector.state_dict())
    best_epoch = 0
    for epoch in range(options.epochs):
        detector.train()
        for _ in range(passes):
            order = torch.randperm(len(rows.numeric), generator=generator)
            for chosen in torch.split(order, batch_rows):
                _step(detector, rows.take(chosen), optimizer, options)
                schedule.step()
        loss = held_back_loss(detector, held_back, options.trim)
        if not math.isfinite(loss):
            raise NonFiniteLoss(f"the validation loss of epoch {epoch + 1} is {loss}")
        if loss < min(losses, default=math.inf):
            best, best_epoch = copy.deepcopy(detector.state_dict()), epoch + 1
        losses.append(loss)
        on_epoch(epoch + 1, loss)
        if epoch + 1 - best_epoch >= options.patience:
            break
    detector.load_state_dict(best)
    return losses, best_epoch


def _step(
    detector: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    device = batch.numeric.device.type
    parts = parts_of(batch, options.accumulate)
    rows = sum(kept(len(part.numeric), options.trim) for part in parts)
    for part in parts:
        with torch.autocast("cuda", torch.bfloat16, enabled=device == "cuda"):
            per_row: Tensor = detector(part)
        loss = trimmed(per_row.float(), options.trim).sum() / rows
        loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(detector.parameters(), options.clip_gradient)
    optimizer.step()


@torch.no_grad()
def held_back_loss(detector: Detector, rows: Batch, trim: float = 0.0) -> float:
    """Mean loss over the rows, in evaluation mode, which the detector stays in.

    The highest losses are left out as in training: where one trains on anomalies, they are held
    back too.
    """
    detector.eval()
    total, count = 0.0, 0
    for start in range(0, len(rows.numeric), _ROWS):
        losses = trimmed(detector.loss(rows.take(slice(start, start + _ROWS))).double(), trim)
        total, count = total + float(losses.sum()), count + len(losses)
    return total / max(1, count)


@torch.inference_mode()
def scored(detector: Detector, rows: Batch) -> Tensor:
    """Scores of the rows, float32 [rows] on the CPU, a few thousand rows at a time."""
    parts = [
        detector.score(rows.take(slice(start, start + _ROWS))).float().cpu()
        for start in range(0, len(rows.numeric), _ROWS)
    ]
    return torch.cat(parts) if parts else torch.empty(0)
