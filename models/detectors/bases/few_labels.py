"""Base of detectors that learn from a handful of labelled anomalies among many other rows."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from models.batch import Batch
from models.detectors.bases.integrated_gradients_detector import IntegratedGradientsDetector
from models.layout import Layout
from models.refusal import Refusal


class FewLabels(IntegratedGradientsDetector):
    """Learns from a few labelled anomalies; every other row counts as normal.

    In training each row of a batch is paired with an anomaly, so half of what a step learns from is
    anomalous (DevNet, Pang et al., KDD 2019, algorithm 1). The anomaly is a random point between
    two labelled ones (mixup, Zhang et al., ICLR 2018), which keeps the network from learning ten
    rows by heart: docs/decisions/few-labels.md. In evaluation the mean loss of all labelled
    anomalies is added instead, since there are too few to hold any back.
    """

    labels: ClassVar[Literal["none", "some", "all"]] = "some"

    def __init__(self, layout: Layout, config: Any) -> None:
        super().__init__(layout, config)
        self._anomalies: Batch | None = None  # not in the state: a bundle must not hold rows

    @abstractmethod
    def losses(self, columns: Tensor, anomalous: Tensor) -> Tensor:
        """Loss of each row, float32 [rows].

        `columns` are the inputs [rows, width]; `anomalous` marks the labelled anomalies [rows].
        """

    def show(self, anomalies: Batch) -> None:
        if not len(anomalies.numeric):
            raise Refusal(
                f"expected at least one labelled anomaly for {type(self).__name__}, found none; "
                "train on days that have one, or use a detector that needs no label"
            )
        self._anomalies = anomalies

    def loss(self, batch: Batch) -> Tensor:
        rows = len(batch.numeric)
        columns = self.inputs(batch)
        label = columns.new_zeros(rows) if batch.label is None else batch.label
        own = self.losses(columns, label > 0.5)
        if self._anomalies is None:
            return own
        if not self.training:
            known = self.inputs(self._anomalies)
            every = torch.ones(len(known), dtype=torch.bool, device=known.device)
            return own + self.losses(known, every).mean()
        return own + self.losses(self._draw_between(rows), torch.ones_like(label, dtype=torch.bool))

    def _draw_between(self, rows: int) -> Tensor:
        """Random points, each between two labelled anomalies: [rows, width]."""
        assert self._anomalies is not None
        known = self.inputs(self._anomalies)
        one, other = (torch.randint(len(known), (rows,), device=known.device) for _ in range(2))
        return torch.lerp(known[one], known[other], torch.rand(rows, 1, device=known.device))
