"""The training loop on one device. `cluster.training.trainer` has the one over many."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.detectors.detector import Detector
from models.training.options import (
    NonFiniteLoss,
    TrainingOptions,
    batches_of,
    kept,
    parts_of,
    rate,
    trimmed,
)

# Rows that are scored or validated at once: the activations of a wide network stay small.
_ROWS = 4096


@dataclass(frozen=True)
class Learned:
    """What a learning gives back; the detector holds the best epoch's weights."""

    losses: tuple[float, ...]  # held-back loss of each epoch
    best_epoch: int  # from 1


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
