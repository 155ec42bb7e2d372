"""DevNet: a deviation network, trained with a few labelled anomalies."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch
from models.detectors.bases.few_labels import FewLabels
from models.detectors.detector import expect, expect_widths
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.mlp import mlp, run
from models.layout import Layout


@dataclass(frozen=True)
class DevNetConfig:
    """Options of `devnet`."""

    # Small, and shrunk: a larger network learns ten anomalies by heart
    # (docs/decisions/few-labels.md).
    widths: tuple[int, ...] = (64,)  # units of the hidden layers
    dropout: float = 0.5  # share of hidden units dropped in training, 0 to 1
    shrink: float = 0.1  # weight of the sum of squared weights in the loss
    margin: float = 5.0  # least score of a labelled anomaly; the paper's value
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect_widths(self)
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(0 <= self.shrink < math.inf, self, "shrink", "0 or more")
        expect(0 < self.margin < math.inf, self, "margin", "more than 0")
        expect(self.steps >= 1, self, "steps", "1 or more")


class DevNet(FewLabels):
    """A network trained to score labelled anomalies far above all other rows.

    Pang, Shen and van den Hengel, KDD 2019. The loss (equation 7) is |s| for a row that is not a
    labelled anomaly, and max(0, margin - s) for one that is. The authors compare with 5,000
    reference scores from N(0, 1) a batch; their mean and deviation are 0 and 1 to two digits, and 0
    and 1 are used here.
    """

    Config = DevNetConfig

    @classmethod
    def space(cls) -> Space:
        return {"widths": WIDTHS, "dropout": OneOf((0.0, 0.1, 0.3, 0.5))}

    def __init__(self, layout: Layout, config: DevNetConfig) -> None:
        super().__init__(layout, config)
        self.layers = mlp((self.inputs.width, *config.widths, 1))

    def loss(self, batch: Batch) -> Tensor:
        losses = super().loss(batch)
        shrink: float = self.config.shrink
        if not (self.training and shrink):
            return losses
        squares = [parameter.square().sum() for parameter in self.layers.parameters()]
        return losses + shrink * torch.stack(squares).sum()

    def losses(self, columns: Tensor, anomalous: Tensor) -> Tensor:
        score = self._output(columns, self.config.dropout if self.training else 0.0)
        return torch.where(anomalous, (self.config.margin - score).clamp_min(0), score.abs())

    def score_columns(self, columns: Tensor) -> Tensor:
        return self._output(columns)

    def _output(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        return run(self.layers, columns, dropout).float().squeeze(1)
