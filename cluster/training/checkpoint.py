"""A training on disk between two epochs: safetensors and JSON, never pickle."""

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray.train
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.detectors.detector import Detector

_TENSORS, _FACTS = "training.safetensors", "training.json"
_NOW, _BEST, _OPTIMIZER = "now.", "best.", "optimizer."


@dataclass(frozen=True)
class Progress:
    """What the epochs so far have given; `after` makes the next one."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0  # counted from 1
    resumed_from: int = 0

    def after(self, entry: dict[str, float], state: dict[str, Tensor]) -> "Progress":
        history = [*self.history, entry]
        losses = [e["validation_loss"] for e in self.history]
        if losses and entry["validation_loss"] >= min(losses):
            return replace(self, history=history)
        copy = {name: tensor.detach().cpu().clone() for name, tensor in state.items()}
        return replace(self, history=history, best=copy, best_epoch=int(entry["epoch"]))

    def report(
        self,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
        rank: int,
        metrics: dict[str, float],
    ) -> None:
        """Hand the epoch to Ray Train: a barrier of all ranks, the checkpoint from the first."""
        if rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder), self, detector, optimizer, schedule)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def save(
    folder: Path,
    progress: Progress,
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Write weights, best weights and optimizer moments; what is not a tensor goes to JSON."""
    tensors = {_NOW + name: t.detach().cpu().contiguous() for name, t in _state(detector).items()}
    tensors |= {_BEST + name: t.contiguous() for name, t in progress.best.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value).cpu().contiguous()
    # Shared storage is refused by safetensors: clone.
    save_file({k: v.clone() for k, v in tensors.items()}, folder / _TENSORS)
    facts = {
        "history": progress.history,
        "best_epoch": progress.best_epoch,
        "resumed_from": progress.resumed_from,
        "step": schedule.last_epoch,
    }
    (folder / _FACTS).write_text(json.dumps(facts))


def _state(detector: Detector) -> dict[str, Tensor]:
    return dict(detector.state_dict())


def load(folder: str | Path) -> Progress:
    """The progress in a checkpoint folder."""
    facts, tensors = _read(Path(folder))
    best = {k.removeprefix(_BEST): t for k, t in tensors.items() if k.startswith(_BEST)}
    return Progress(facts["history"], best, facts["best_epoch"], facts["resumed_from"])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / _FACTS).read_text()), load_file(folder / _TENSORS)


def restore(
    folder: str | Path,
    detector: Detector,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> Progress:
    """Put a checkpoint's weights, moments and step back, on the detector's device."""
    facts, tensors = _read(Path(folder))
    detector.load_state_dict(
        {k.removeprefix(_NOW): t for k, t in tensors.items() if k.startswith(_NOW)}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_OPTIMIZER):
            index, name = key.removeprefix(_OPTIMIZER).split(".", 1)
            state.setdefault(int(index), {})[name] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": facts["step"]})
    for group, rate in zip(optimizer.param_groups, _rates(schedule), strict=True):
        group["lr"] = rate
    progress = load(folder)
    return replace(progress, resumed_from=len(progress.history))


def _rates(schedule: torch.optim.lr_scheduler.LRScheduler) -> list[float]:
    lambdas = getattr(schedule, "lr_lambdas")  # noqa: B009 - LambdaLR, which is what we use
    return [
        base * f(schedule.last_epoch) for base, f in zip(schedule.base_lrs, lambdas, strict=True)
    ]
