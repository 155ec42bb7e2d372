"""Base of detectors whose score is one differentiable function of all inputs."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector
from models.layers.dense_inputs import Inputs
from models.layers.integrated_gradients import integrated_gradients
from models.layout import Layout
from models.refusal import Refusal


class IntegratedGradientsDetector(Detector):
    """Explains its scores by integrated gradients from a reference row.

    The reference row is the mean of the held-back rows that are not labelled anomalous
    (`calibrate`); before that, zeros. `base_score()` is its score. A share below 0 makes a row look
    more normal. `expected` is the reference row, and for each category the most frequent code.

    The config must have a field `steps`, the number of nodes of the integral.
    """

    explains_by_gradients = True
    reference: Tensor
    usual_codes: Tensor

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__(layout, config)
        self.inputs = self.make_inputs(layout)
        self.register_buffer("reference", torch.zeros(self.inputs.width))
        self.register_buffer("usual_codes", torch.zeros(len(layout.categories), dtype=torch.int64))

    def make_inputs(self, layout: Layout) -> Inputs:
        """The module that turns a batch into one matrix."""
        return Inputs(layout, embed=True)

    @abstractmethod
    def score_columns(self, columns: Tensor) -> Tensor:
        """Score of each row, float32 [rows], of inputs [rows, width]; differentiable."""

    def score(self, batch: Batch) -> Tensor:
        return self.score_columns(self.inputs(batch))

    def base_score(self) -> float:
        with torch.no_grad():
            return float(self.score_columns(self.reference[None]))

    def contributions(self, batch: Batch) -> Contributions:
        with torch.no_grad():
            columns = self.inputs(batch)
        shares = integrated_gradients(
            self.score_columns, columns, self.reference, self.config.steps
        )
        with torch.no_grad():
            rows = len(columns)
            usual = self.reference[: self.inputs.numbers].expand(rows, -1)
            expected = self.inputs.make_batch(usual, self.usual_codes.expand(rows, -1))
            maps = self.inputs.map_places(shares, batch)
            return Contributions(self.inputs.sum_by_feature(shares), expected, maps)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Take the reference row from the held-back rows that are not labelled anomalous.

        If all of them are, it is taken from all. Raises Refusal if there are no rows.
        """
        normal = [b for b in map(_drop_anomalies, batches) if len(b.numeric)] or batches
        rows = sum(len(b.numeric) for b in normal)
        if not rows:
            name = type(self).__name__
            raise Refusal(f"expected held-back rows to calibrate the {name} on, found none")
        total = sum(self.inputs(b).double().sum(0) for b in normal) / rows
        self.reference.copy_(torch.as_tensor(total))
        for j, category in enumerate(self.layout.categories):
            counts = sum(torch.bincount(b.codes[:, j], minlength=category.size) for b in normal)
            self.usual_codes[j] = torch.as_tensor(counts).argmax()


def _drop_anomalies(batch: Batch) -> Batch:
    if batch.label is None:
        return batch
    return batch.take(~(batch.label > 0.5))  # NaN is unknown
