"""The contract that every detector keeps.

A detector is a `torch.nn.Module` on one device that knows nothing of Ray, files or DDP. It says
three things of a batch: a loss to train on, a score a row (higher is more anomalous, always), and
what each feature contributed to that score.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions, Layout
from models.detectors.search_space import Space
from models.refusal import Refusal


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
    `config.sample_rows` rows;
    `learns = "both"` — it is fitted, then it learns by gradient. Of an ensemble it depends on the
    members, and is known when it is built.

    `labels = "none"` — it sees no label; `"some"` — a few anomalies are known (`show`), of the
    other rows nothing; `"all"` — rows without a label are left out.
    """

    Config: ClassVar[type[Any]]
    learns: Literal["gradient", "sample", "both"] = "gradient"
    labels: ClassVar[Literal["none", "some", "all"]] = "none"

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__()
        self.layout = layout
        self.config = config
        digest = torch.frombuffer(bytearray(layout.digest()), dtype=torch.uint8)
        self.register_buffer("layout_digest", digest)

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        """What this detector lacks in a layout, as "expected …, found …"; None where it fits."""
        return None

    @classmethod
    def space(cls) -> Space:
        """Options that are worth tuning, and where; empty where there is nothing to tune."""
        return {}

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
        """Learn the class balance, for `labels == "all"`: once, on every rank and before DDP wraps
        the detector.

        `positive` of the `rows` training rows (of all ranks together) are anomalies by label.
        """

    def show(self, anomalies: Batch) -> None:
        """Be shown the labelled anomalies, for `labels == "some"`: once, on every rank and before
        DDP wraps the detector. They are no part of its state."""

    def fit(self, sample: Batch, seed: int) -> None:
        """Learn from a sample of rows, for `learns` other than "gradient"."""
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
