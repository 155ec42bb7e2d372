"""Supervised classifier, for tables with a label: the score is the logit of "anomaly"."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.detector import Batch, Contributions, Detector, Layout, expect
from models.inputs import Inputs, mlp, run
from models.refusal import Refusal


@dataclass(frozen=True)
class ClassifierConfig:
    """Options of `classifier`."""

    widths: tuple[int, ...] = (256, 128)  # units of the hidden layers
    dropout: float = 0.1  # share of hidden units dropped in training, 0 to 1
    imbalance: Literal["positive_weight", "focal"] = "positive_weight"  # what rare labels get
    max_weight: float = 100.0  # most that one anomaly may weigh, in normal rows
    gamma: float = 2.0  # focal only: how fast the loss of easy rows fades
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect(
            len(self.widths) > 0 and all(w >= 1 for w in self.widths),
            self,
            "widths",
            "at least one width, each 1 or more",
        )
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(1 <= self.max_weight < math.inf, self, "max_weight", "1 or more")
        expect(0 <= self.gamma < math.inf, self, "gamma", "0 or more")
        expect(self.steps >= 1, self, "steps", "1 or more")


class Classifier(Detector):
    """Binary cross-entropy with the imbalance handled; call `prepare` before training.

    `positive_weight`: anomalies weigh normal rows / anomalies, at most `max_weight`, and the
    weights average 1 over the training rows. `focal`: (1 - p_true)^gamma times the cross-entropy,
    the output starting at the prior (Lin et al., ICCV 2017, sections 3.2 and 4.1).

    Contributions are integrated gradients (Sundararajan et al., ICML 2017) along the straight line
    from a reference row, by Gauss-Legendre quadrature of `steps` nodes: `base_score()`, the score
    of the reference row, plus the shares is the score within 1% of |score - base_score| + 0.01.
    A share below 0 speaks for normal. The reference row is the mean of the held-back normal rows
    (`calibrate`); before that, zeros. `expected` is that row; of each category the commonest code.
    """

    Config = ClassifierConfig
    needs_labels = True
    class_weight: Tensor
    reference: Tensor
    usual_numeric: Tensor
    usual_codes: Tensor

    def __init__(self, layout: Layout, config: ClassifierConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=True)
        self.layers = mlp((self.inputs.width, *config.widths, 1))
        self.register_buffer("class_weight", torch.ones(2))  # of a normal row, of an anomaly
        self.register_buffer("reference", torch.zeros(self.inputs.width))
        self.register_buffer("usual_numeric", torch.zeros(len(layout.numeric)))
        self.register_buffer("usual_codes", torch.zeros(len(layout.categories), dtype=torch.int64))

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
            # The head is still random: the prior as bias keeps the first steps from the rare class.
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
            return entropy * -torch.expm1(-entropy).pow(self.config.gamma)
        return entropy * torch.where(batch.label > 0.5, self.class_weight[1], self.class_weight[0])

    def score(self, batch: Batch) -> Tensor:
        return self._logit(self.inputs(batch))

    def base_score(self) -> float:
        with torch.no_grad():
            return float(self._logit(self.reference[None]))

    def contributions(self, batch: Batch) -> Contributions:
        # The caller may be in inference mode, whose tensors no gradient can pass.
        with torch.inference_mode(False), torch.no_grad():
            away = self.inputs(batch).clone() - self.reference
            slope = torch.zeros_like(away)
            for position, weight in self._nodes():
                slope += weight * self._gradient(self.reference + position * away)
            shares = self.inputs.by_feature(slope * away)
            rows = len(away)
            expected = Batch(self.usual_numeric.expand(rows, -1), self.usual_codes.expand(rows, -1))
            return Contributions(shares, expected)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Take the reference row from the held-back rows that are labelled normal, or from all."""
        normal = [b for b in map(_normal, batches) if len(b.numeric)] or batches
        rows = sum(len(b.numeric) for b in normal)
        if not rows:
            raise Refusal("expected held-back rows to calibrate the classifier on, found none")
        total = sum(self.inputs(b).double().sum(0) for b in normal) / rows
        self.reference.copy_(torch.as_tensor(total))
        self.usual_numeric.copy_(self.reference[: len(self.layout.numeric)])
        for j, category in enumerate(self.layout.categories):
            counts = sum(torch.bincount(b.codes[:, j], minlength=category.size) for b in normal)
            self.usual_codes[j] = torch.as_tensor(counts).argmax()

    def _logit(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        return run(self.layers, columns, dropout).float().squeeze(1)

    def _nodes(self) -> list[tuple[float, float]]:
        """Positions and weights of the quadrature on [0, 1]."""
        positions, weights = np.polynomial.legendre.leggauss(self.config.steps)
        return list(zip(((positions + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))

    def _gradient(self, columns: Tensor) -> Tensor:
        with torch.enable_grad():
            columns = columns.detach().requires_grad_()
            # Rows are independent, so the gradient of the sum holds the gradient of each row.
            return torch.autograd.grad(self._logit(columns).sum(), columns)[0]


def _normal(batch: Batch) -> Batch:
    if batch.label is None:
        return batch
    keep = batch.label < 0.5
    return Batch(batch.numeric[keep], batch.codes[keep], batch.label[keep])
