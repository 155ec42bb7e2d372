"""The contract that every detector keeps.

A detector is a `torch.nn.Module` on one device. It knows nothing of Ray, files or DDP. For a batch
it computes three things: the loss to train on, the score of each row (higher is more anomalous,
always), and what each feature contributed to that score.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from models.batch import Batch, Contributions
from models.detectors.search_space import Space
from models.layout import Layout
from models.refusal import Refusal


def expect(holds: bool, config: object, field: str, expected: str) -> None:
    """Raise a Refusal that names this field of a config, unless `holds` is true.

    `expected` describes the allowed values: "1 or more".
    """
    if not holds:
        raise Refusal(
            f"{type(config).__name__}.{field}: expected {expected}, "
            f"found {getattr(config, field)!r}"
        )


def expect_widths(config: Any) -> None:
    """Raise a Refusal unless a config's `widths` are at least one, each 1 or more."""
    holds = len(config.widths) > 0 and all(width >= 1 for width in config.widths)
    expect(holds, config, "widths", "at least one width, each 1 or more")


class Detector(nn.Module, ABC):
    """Base class of all detectors.

    A subclass sets `Config`, a frozen dataclass in which every field has a default. The first
    paragraph of its docstring is its line in docs/detectors.md.

    The shapes of parameters and buffers follow from layout and config alone, and `__init__` reads
    no element of a tensor: a saved detector is built on the meta device first, to compare shapes,
    and then filled with `load_state_dict` (`rebuilding.py`). A `fit` may replace the config by one
    that also says how large the fitted state is.

    Two class attributes say how it is trained.

    `learns`:
        "gradient": the training loop minimises `loss` over epochs of batches;
        "sample": `fit` is called once, with a uniform sample of at most `config.sample_rows` rows;
        "both": it is fitted first, then it learns by gradient.
    `labels`:
        "none": it sees no label;
        "some": it is shown a few known anomalies (`show`); nothing is known of the other rows;
        "all": every training row has a label; rows without one are left out.
    """

    Config: ClassVar[type[Any]]
    learns: Literal["gradient", "sample", "both"] = "gradient"
    labels: ClassVar[Literal["none", "some", "all"]] = "none"
    # Why a CPU scores it with torch though it could be exported to ONNX; None if it is exported.
    eager: ClassVar[str | None] = None
    # Whether `contributions` needs gradients, which ONNX does not have.
    explains_by_gradients: ClassVar[bool] = False

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__()
        self.layout = layout
        self.config = config
        digest = torch.frombuffer(bytearray(layout.digest()), dtype=torch.uint8)
        self.register_buffer("layout_digest", digest)

    @classmethod
    def unfit(cls, layout: Layout) -> str | None:
        """Why it cannot learn from a layout, as "expected …, found …"; None if it can."""
        return None

    @classmethod
    def space(cls) -> Space:
        """The options worth tuning, each with the values to try; empty if there are none."""
        return {}

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Training loss of each row, float32 [rows]. The training loop averages.

        Raises Refusal for a batch of another layout.
        """

    @abstractmethod
    def score(self, batch: Batch) -> Tensor:
        """Anomaly score of each row, float32 [rows]; higher is more anomalous.

        The score of a row does not depend on the other rows of the batch.

        Raises Refusal for a batch of another layout.
        """

    @abstractmethod
    def contributions(self, batch: Batch) -> Contributions:
        """What each feature added to the score: `base_score() + shares.sum(1)` is the score.

        The sum is exact up to rounding. Raises Refusal for a batch of another layout.
        """

    def base_score(self) -> float:
        """The score that the shares are added to."""
        return 0.0

    def prepare(self, positive: int, rows: int) -> None:
        """Take the class balance; called if `labels == "all"`.

        `positive` of the `rows` training rows are labelled anomalies, counted over all ranks. It is
        called once on every rank, before DDP wraps the detector.
        """

    def show(self, anomalies: Batch) -> None:
        """Take the labelled anomalies; called if `labels == "some"`.

        They are not part of the state, and move with the detector. It is called once on every rank,
        before DDP wraps the detector.
        """

    def fit(self, sample: Batch, seed: int) -> None:
        """Learn from a sample of rows; called if `learns` is not "gradient".

        Raises Refusal if the rows are too few.
        """
        raise TypeError(f"{type(self).__name__} learns by gradient, not from a sample")

    def calibrate(self, batches: list[Batch]) -> None:
        """Measure on held-back rows what the score needs after training, such as usual errors.

        Raises Refusal if it needs rows and there are none.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What torch calls in `to`, `cuda` and `cpu`: moves what is no part of the state too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, held in vars(self).items():
            if isinstance(held, Batch):
                setattr(self, name, held.map(fn))
            elif isinstance(held, Tensor):
                setattr(self, name, fn(held))
        return self

    def forward(self, batch: Batch) -> Tensor:
        """The training loss. DDP's hooks run when a module is called."""
        return self.loss(batch)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state as torch does. Raises Refusal if it has another layout or config."""
        digest = state_dict.get("layout_digest")
        if digest is None or bytes(digest.cpu().tolist()) != self.layout.digest():
            raise Refusal(
                "expected the state of a detector with this encoder's layout, found another "
                "layout; load it with the encoder that it was trained with"
            )
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            raise Refusal(
                f"expected the state of a {type(self).__name__} with {self.config}, found: {error}"
            ) from error
