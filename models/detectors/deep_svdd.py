"""Deep SVDD: a network that maps normal rows near one point."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch
from models.detectors.bases.integrated_gradients_detector import IntegratedGradientsDetector
from models.detectors.detector import expect, expect_widths
from models.layers.convolution import Painters, Towers
from models.layout import Layout


@dataclass(frozen=True)
class DeepSVDDConfig:
    """Options of `deep_svdd`."""

    widths: tuple[int, ...] = (256, 128)  # units of the layers for columns that are not convolved
    channels: int = 8  # of the first convolution; they double each time the sides are halved
    outputs: int = 32  # width of the code that is pulled to the centre
    reconstruction: float = 30.0  # weight of the decoder's mean squared error in the loss
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect_widths(self)
        expect(self.channels >= 1, self, "channels", "1 or more")
        expect(self.outputs >= 1, self, "outputs", "1 or more")
        expect(0 < self.reconstruction < math.inf, self, "reconstruction", "more than 0")
        expect(self.steps >= 1, self, "steps", "1 or more")


# No coordinate of the centre is nearer to 0 than this, or else weights of 0 would map every row to
# it. The authors' code has the same guard.
_LEAST_CENTRE = 0.1
_LEAST_USUAL = 1e-6  # lower bound of the means that the score divides by
_PROBES = 1024  # random rows; their mean code is the centre


class DeepSVDD(IntegratedGradientsDetector):
    """Maps normal rows near a fixed point; scores by the distance and by the error of a decoder.

    Deep SVDD (Ruff et al., ICML 2018, equation 4) with a decoder (DASVDD, Hojjati & Armanfard,
    arXiv:2106.05410). The score is the squared distance of a row's code from the centre, plus the
    mean squared error of the row rebuilt from its code, each divided by its mean over held-back
    rows (`calibrate`).

    Nothing may let the network map every row to the centre: no layer of the encoder has a bias, no
    activation is bounded (propositions 2 and 3 of Ruff et al.), no coordinate of the centre is near
    0, and the decoder needs codes that differ (docs/decisions/deep-svdd-decoder.md). The centre is
    the mean code, before training, of standard normal rows, which is how the encoder scales: every
    rank of a training finds the same centre without seeing data.

    Signals are convolved; all other columns go through dense layers.
    """

    Config = DeepSVDDConfig
    centre: Tensor
    usual: Tensor

    def __init__(self, layout: Layout, config: DeepSVDDConfig) -> None:
        super().__init__(layout, config)
        width, sizes = self.inputs.width, (config.channels, config.widths)
        self.encoder = Towers(layout, width, config.outputs, *sizes, bias=False)
        self.decoder = Painters(layout, config.outputs, width, *sizes)
        probes = torch.randn(_PROBES, width, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            centre = self.encoder(probes).mean(0)
        away = torch.where(centre < 0, -1.0, 1.0) * centre.abs().clamp_min(_LEAST_CENTRE)
        self.register_buffer("centre", away)
        self.register_buffer("usual", torch.ones(2))  # distance and error of held-back rows

    def loss(self, batch: Batch) -> Tensor:
        distance, errors = self._measure(self.inputs(batch))
        loss: Tensor = distance + self.config.reconstruction * errors
        return loss

    def score_columns(self, columns: Tensor) -> Tensor:
        distance, errors = self._measure(columns)
        return distance / self.usual[0] + errors / self.usual[1]

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Take the reference row, and the mean distance and error. Raises Refusal without rows."""
        super().calibrate(batches)
        judged = [torch.stack(self._measure(self.inputs(batch))).double() for batch in batches]
        self.usual.copy_(torch.cat(judged, 1).mean(1).clamp_min(_LEAST_USUAL))

    def _measure(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance to the centre, and mean squared error without padding: [rows] each.

        In training no gradient reaches embeddings through the target: a target that moves towards
        its reconstruction would be another way to collapse.
        """
        code = self.encoder(columns)
        target = columns.detach() if self.training else columns
        errors = (self.decoder(code).float() - target).square()
        numbers = self.inputs.numbers
        if (counted := self.inputs.mask_padding(columns[:, :numbers].T)) is not None:
            errors = torch.cat([errors[:, :numbers] * counted.T, errors[:, numbers:]], 1)
        return (code.float() - self.centre).square().sum(1), errors.mean(1)
