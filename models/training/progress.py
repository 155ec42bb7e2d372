"""What a training has reached after some epochs: losses, best weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class EpochResult:
    """The figures of one epoch, over all ranks."""

    epoch: int  # counted from 1
    train_loss: float  # mean over the rows that were not trimmed
    validation_loss: float  # mean over the held-back rows that were not trimmed
    learning_rate: float  # at the end of the epoch
    rows_per_second: float  # training rows, without validation


@dataclass(frozen=True)
class Progress:
    """The epochs so far. `add` makes the next progress."""

    history: tuple[EpochResult, ...] = ()
    best: Mapping[str, Tensor] = field(default_factory=dict)  # the best epoch's weights, on the CPU
    best_epoch: int = 0  # counted from 1; 0 before the first epoch
    resumed_from: int = 0  # epochs that an earlier, interrupted training had done

    def add(self, result: EpochResult, weights: Mapping[str, Tensor]) -> "Progress":
        """The progress with one more epoch; its weights are copied if it is the best."""
        history = (*self.history, result)
        if any(result.validation_loss >= earlier.validation_loss for earlier in self.history):
            return replace(self, history=history)
        best = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        return replace(self, history=history, best=best, best_epoch=result.epoch)
