"""The contract that every detector keeps.

A detector is a `torch.nn.Module` on one device that knows nothing of Ray, files or DDP. It says
three things of a batch: a loss to train on, a score a row (higher is more anomalous, always), and
what each feature contributed to that score.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.refusal import Refusal


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
        return (*(i.name for i in self.numeric), *(c.name for c in self.categories))

    def digest(self) -> bytes:
        """SHA-256 of names, kinds and sizes, 32 bytes: two layouts are the same if this is."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).digest()

    def check(self, batch: Batch) -> None:
        """Raise Refusal unless the batch has this layout's columns and types.

        The range of the codes is checked on the CPU only: on a GPU the check would wait for the
        device, and the encoder makes no other codes.
        """
        wanted = (len(self.numeric), torch.float32, len(self.categories), torch.int64)
        found = (*_columns(batch.numeric), *_columns(batch.codes))
        if wanted != found or len(batch.numeric) != len(batch.codes):
            raise Refusal(
                f"expected a batch of {wanted[0]} numeric columns ({wanted[1]}) and {wanted[2]} "
                f"columns of codes ({wanted[3]}), found {found[0]} ({found[1]}) and {found[2]} "
                f"({found[3]}), with {len(batch.numeric)} and {len(batch.codes)} rows; encode "
                f"the rows with the encoder that the detector was trained with"
            )
        if self.categories and len(batch.codes) and batch.codes.device.type == "cpu":
            sizes = torch.tensor([c.size for c in self.categories])
            outside = ((batch.codes < 0) | (batch.codes >= sizes)).any(0).nonzero()
            if len(outside):
                category = self.categories[int(outside[0])]
                raise Refusal(
                    f"expected codes of '{category.name}' from 0 to {category.size - 1}, found "
                    f"others; encode the rows with the encoder that the detector was trained with"
                )


def _columns(tensor: Tensor) -> tuple[int, torch.dtype]:
    return (tensor.shape[1] if tensor.ndim == 2 else -1), tensor.dtype


class Contributions(NamedTuple):
    """Why a row got its score."""

    shares: Tensor  # float32 [rows, len(layout.features)], in the score's unit
    expected: Batch  # what the detector expected instead, encoded: float32 and int64 as in Batch


def expect(holds: bool, config: object, field: str, expected: str) -> None:
    """Raise Refusal naming the field of a detector's config unless `holds`."""
    if not holds:
        raise Refusal(
            f"{type(config).__name__}.{field}: expected {expected}, "
            f"found {getattr(config, field)!r}"
        )


class Detector(nn.Module, ABC):
    """Base of all detectors. Subclasses set `Config`, a frozen dataclass with defaults.

    Shapes of parameters and buffers follow from layout and config alone, so a saved detector is
    loaded by building it anew from the two, then `load_state_dict`.

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
        digest = torch.frombuffer(bytearray(layout.digest()), dtype=torch.uint8)
        self.register_buffer("layout_digest", digest)

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
        """What each feature added to the score: `base_score() + shares.sum(1)` is the score.

        Exact up to float32 unless the class says otherwise.
        """

    def base_score(self) -> float:
        """The score that the shares start from."""
        return 0.0

    def prepare(self, positive: int, rows: int) -> None:
        """Learn the class balance, once, on every rank and before DDP wraps the detector.

        `positive` of the `rows` training rows (of all ranks together) are anomalies by label.
        """

    def fit(self, sample: Batch, seed: int) -> None:
        """Learn from a sample of rows, for `learns == "sample"`."""
        raise TypeError(f"{type(self).__name__} learns by gradient, not from a sample")

    def calibrate(self, batches: list[Batch]) -> None:
        """Settle what needs held-back rows after training, such as residual scales."""

    def forward(self, batch: Batch) -> Tensor:
        """The training loss, so that DDP's hooks see the call."""
        return self.loss(batch)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's, and raises Refusal if the state is of another layout or config."""
        digest = state_dict.get("layout_digest")
        if digest is None or bytes(digest.tolist()) != self.layout.digest():
            raise Refusal(
                "expected the state of a detector with this encoder's layout, found another "
                "layout's; load it with the encoder that it was trained with"
            )
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise Refusal(
                f"expected the state of a {type(self).__name__} with {self.config}, found: {error}"
            ) from error
