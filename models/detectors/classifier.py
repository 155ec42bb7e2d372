"""Supervised classifier for labelled tables: the score is the logit of "anomaly"."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch
from models.detectors.bases.integrated_gradients_detector import IntegratedGradientsDetector
from models.detectors.detector import expect, expect_widths
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.mlp import mlp, run
from models.layout import Layout
from models.refusal import Refusal


@dataclass(frozen=True)
class ClassifierConfig:
    """Options of `classifier`."""

    widths: tuple[int, ...] = (256, 128)  # units of the hidden layers
    dropout: float = 0.1  # share of hidden units dropped in training, 0 to 1
    imbalance: Literal["positive_weight", "focal"] = "positive_weight"  # how rare labels count
    # Largest weight of an anomaly, relative to a normal row; 1 is plain cross-entropy. A larger one
    # costs average precision (docs/decisions/class-weight.md).
    max_weight: float = 1.0
    gamma: float = 2.0  # focal only: how fast the loss of easy rows decreases
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect_widths(self)
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(1 <= self.max_weight < math.inf, self, "max_weight", "1 or more")
        expect(0 <= self.gamma < math.inf, self, "gamma", "0 or more")
        expect(self.steps >= 1, self, "steps", "1 or more")


class Classifier(IntegratedGradientsDetector):
    """A network trained on labels by cross-entropy, in which rare anomalies may weigh more.

    Call `prepare` before training. With `imbalance: positive_weight` an anomaly weighs as many
    normal rows as there are for each anomaly, at most `max_weight` (1 unless set), and the weights
    average 1 over the training rows. With `focal` the cross-entropy is multiplied by (1 -
    p_true)^gamma, and the output starts at the prior (Lin et al., ICCV 2017, sections 3.2 and 4.1).
    """

    Config = ClassifierConfig
    labels = "all"
    class_weight: Tensor

    @classmethod
    def space(cls) -> Space:
        return {
            "widths": WIDTHS,
            "dropout": OneOf((0.0, 0.1, 0.3, 0.5)),
            "imbalance": OneOf(("positive_weight", "focal")),
            "max_weight": OneOf((1.0, 10.0, 100.0)),
        }

    def __init__(self, layout: Layout, config: ClassifierConfig) -> None:
        super().__init__(layout, config)
        self.layers = mlp((self.inputs.width, *config.widths, 1))
        self.register_buffer("class_weight", torch.ones(2))  # of a normal row, of an anomaly

    @torch.no_grad()
    def prepare(self, positive: int, rows: int) -> None:
        if not 0 < positive < rows:
            raise Refusal(
                f"expected training rows of both classes, found {positive:,} anomalies in "
                f"{rows:,} rows; train on days with labelled anomalies or use a detector that "
                f"needs no label"
            )
        negative = rows - positive
        if self.config.imbalance == "focal":
            # The weights are still random: with the prior as bias the first steps do not move
            # every row towards the rare class.
            self.layers[-1].bias.fill_(math.log(positive / negative))  # type: ignore[operator]
            return
        weight = min(max(negative / positive, 1 / self.config.max_weight), self.config.max_weight)
        mean = (negative + weight * positive) / rows
        self.class_weight.copy_(torch.tensor([1 / mean, weight / mean]))

    def loss(self, batch: Batch) -> Tensor:
        if batch.label is None:
            raise Refusal(
                "expected labels to train the classifier, found none; name a label column"
            )
        columns = self.inputs(batch)
        logit = self._logit(columns, self.config.dropout if self.training else 0.0)
        entropy = F.binary_cross_entropy_with_logits(logit, batch.label, reduction="none")
        if self.config.imbalance == "focal":
            # Above 0, or else the slope of a power below 1 is infinite, and times 0 it is NaN.
            missed = (-torch.expm1(-entropy)).clamp_min(torch.finfo(torch.float32).tiny)
            return entropy * missed.pow(self.config.gamma)
        return entropy * torch.where(batch.label > 0.5, self.class_weight[1], self.class_weight[0])

    def score_columns(self, columns: Tensor) -> Tensor:
        return self._logit(columns)

    def _logit(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        return run(self.layers, columns, dropout).float().squeeze(1)
