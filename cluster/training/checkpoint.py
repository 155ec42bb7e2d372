"""Checkpoints of a training: safetensors and JSON, never pickle."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cluster.lake.storage.store import Store
from models.training.loop import Training
from models.training.progress import EpochResult, Progress

_TENSORS, _FACTS = "training.safetensors", "training.json"
FILES = (_TENSORS, _FACTS)
_NOW, _BEST, _OPTIMIZER = "now.", "best.", "optimizer."


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its state, so that it can be resumed."""

    storage: Store
    name: str  # of the training; the same for the same spec and data


def save(folder: Path, training: Training) -> None:
    """Write weights, best weights and optimizer moments as tensors, the rest as JSON."""
    progress = training.progress
    weights = training.detector.state_dict()
    tensors = {_NOW + name: t.detach().cpu().contiguous() for name, t in weights.items()}
    tensors |= {_BEST + name: t.contiguous() for name, t in progress.best.items()}
    for index, moments in training.optimizer.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"{_OPTIMIZER}{index}.{name}"] = torch.as_tensor(value).cpu().contiguous()
    # Shared storage is refused by safetensors: clone.
    save_file({k: v.clone() for k, v in tensors.items()}, folder / _TENSORS)
    facts = {
        "history": [asdict(result) for result in progress.history],
        "best_epoch": progress.best_epoch,
        "resumed_from": progress.resumed_from,
        "step": training.schedule.last_epoch,
    }
    (folder / _FACTS).write_text(json.dumps(facts))


def load(folder: str | Path) -> Progress:
    """The progress in a checkpoint folder."""
    return _progress(*_read(Path(folder)))


def restore(folder: str | Path, training: Training) -> None:
    """Set a training to the weights, moments, step and progress of a checkpoint."""
    facts, tensors = _read(Path(folder))
    training.detector.load_state_dict(_under(_NOW, tensors))
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in _under(_OPTIMIZER, tensors).items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    schedule, step = training.schedule, facts["step"]
    schedule.load_state_dict({**schedule.state_dict(), "last_epoch": step})
    rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    for group, (base, factor) in zip(training.optimizer.param_groups, rates, strict=True):
        group["lr"] = base * factor(step)
    progress = _progress(facts, tensors)
    training.progress = replace(progress, resumed_from=len(progress.history))


def _progress(facts: dict[str, Any], tensors: dict[str, Tensor]) -> Progress:
    history = tuple(EpochResult(**entry) for entry in facts["history"])
    return Progress(history, _under(_BEST, tensors), facts["best_epoch"], facts["resumed_from"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    return json.loads((folder / _FACTS).read_text()), load_file(folder / _TENSORS)
