"""The contract that every detector keeps.

A detector is a `torch.nn.Module` on one device that knows nothing of Ray, files or DDP. It says
three things of a batch: a loss to train on, a score a row (higher is more anomalous, always), and
what each feature contributed to that score.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn


class Batch(NamedTuple):
    """Encoded rows on one device."""

    numeric: Tensor  # float32 [rows, len(layout.numeric)]
    codes: Tensor  # int64 [rows, len(layout.categories)]; 0 is "other", 1 is null
    label: Tensor | None = None  # float32 [rows]; 1 is an anomaly

    def to(self, device: torch.device | str) -> "Batch":
        label = None if self.label is None else self.label.to(device)
        return Batch(self.numeric.to(device), self.codes.to(device), label)


@dataclass(frozen=True)
class NumericInput:
    """One column of `Batch.numeric`."""

    name: str  # as a reason names it: "duration", "duration is null", "hour of ts (sin)"
    kind: Literal["real", "binary"]  # scaled number (about zero mean, unit variance), or 0/1


@dataclass(frozen=True)
class CategoryInput:
    """One column of `Batch.codes`."""

    name: str
    size: int  # codes are 0 .. size - 1
    embedding: int = 0  # width of a learned embedding; 0 for one-hot


@dataclass(frozen=True)
class Layout:
    """The shape of an encoder's output: what a detector is built for."""

    numeric: tuple[NumericInput, ...]
    categories: tuple[CategoryInput, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features, in the order of `Contributions.shares`."""
        return tuple(i.name for i in (*self.numeric, *self.categories))


class Contributions(NamedTuple):
    """Why a row got its score."""

    shares: Tensor  # float32 [rows, len(layout.features)], in the score's unit
    expected: Batch  # what the detector expected instead, encoded: float32 and int64 as in Batch


class Detector(nn.Module, ABC):
    """Base of all detectors. Subclasses set `Config`, a frozen dataclass with defaults.

    Class attributes say how a detector is trained:
    `learns = "gradient"` — the training loop minimises `loss` over epochs of batches;
    `learns = "sample"` — `fit` is called once with a uniform sample of at most
    `config.sample_rows` rows.
    """

    Config: ClassVar[type[Any]]
    learns: ClassVar[Literal["gradient", "sample"]] = "gradient"
    needs_labels: ClassVar[bool] = False

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__()
        self.layout = layout
        self.config = config

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Training loss of each row: float32 [rows]. The loop weighs and averages."""

    @abstractmethod
    def score(self, batch: Batch) -> Tensor:
        """Anomaly score of each row: float32 [rows], higher is more anomalous.

        The score of a row does not depend on the other rows of the batch.
        """

    @abstractmethod
    def contributions(self, batch: Batch) -> Contributions:
        """What each feature added to the score; how the shares add up is each class's docstring."""

    def fit(self, sample: Batch, seed: int) -> None:
        """Learn from a sample of rows, for `learns == "sample"`."""
        raise TypeError(f"{type(self).__name__} learns by gradient, not from a sample")

    def calibrate(self, batches: list[Batch]) -> None:  # noqa: B027 - a hook, empty by default
        """Settle what needs held-back rows after training, such as residual scales."""

    def forward(self, batch: Batch) -> Tensor:
        """The training loss, so that DDP's hooks see the call."""
        return self.loss(batch)
