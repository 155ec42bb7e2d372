"""Deep SVDD: a network pulls normal rows to one point; rows that stay away are anomalous."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Layout
from models.detectors.bases.integrated_gradients_detector import IntegratedGradientsDetector
from models.detectors.detector import expect
from models.layers.convolution import Painters, Towers


@dataclass(frozen=True)
class DeepSVDDConfig:
    """Options of `deep_svdd`."""

    widths: tuple[int, ...] = (256, 128)  # units of the layers of what is not convolved
    channels: int = 8  # of the first convolution; they double as the sides are halved
    outputs: int = 32  # width of the code that is pulled to the centre
    # Weight in training of the error of a row rebuilt from its code, a number; with 1 the codes
    # keep too little: AUROC 0.54 instead of 0.77 of the distance on shirts of Fashion-MNIST.
    reconstruction: float = 30.0
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect(
            len(self.widths) > 0 and all(w >= 1 for w in self.widths),
            self,
            "widths",
            "at least one width, each 1 or more",
        )
        expect(self.channels >= 1, self, "channels", "1 or more")
        expect(self.outputs >= 1, self, "outputs", "1 or more")
        expect(0 < self.reconstruction < math.inf, self, "reconstruction", "more than 0")
        expect(self.steps >= 1, self, "steps", "1 or more")


# No coordinate of the centre is nearer to 0 than this: zero weights would reach it (the authors'
# code has the same guard).
_LEAST_CENTRE = 0.1
_LEAST_USUAL = 1e-6  # of a mean that is divided by
_PROBES = 1024  # random rows whose mean code is the centre


class DeepSVDD(IntegratedGradientsDetector):
    """Deep SVDD (Ruff et al., ICML 2018, equation 4) with a decoder (DASVDD, Hojjati & Armanfard,
    arXiv:2106.05410): the score is the squared distance of a row's code to a centre that never
    moves, plus the squared error of the row rebuilt from its code, each in units of its mean over
    held-back rows (`calibrate`).

    A network could send everything to the centre. What keeps it from that: no layer of the encoder
    has a bias and no activation a bound (propositions 2 and 3 of Ruff et al.), no coordinate of the
    centre is near 0, and the decoder, which also stands for their pre-training and needs no second
    loop. The distance alone had AUROC 0.77 on shirts of Fashion-MNIST and 0.55 on spoken fours,
    the error 0.75 and 0.96. The centre is the mean code, before training, of standard normal rows,
    which is how the encoder scales: every rank of a training finds the same one without seeing
    data.

    Signals are convolved, everything else goes through dense layers, so it fits any columns.
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
        """Take the reference row, and what distance and error usually are."""
        super().calibrate(batches)
        judged = [torch.stack(self._measure(self.inputs(batch))).double() for batch in batches]
        self.usual.copy_(torch.cat(judged, 1).mean(1).clamp_min(_LEAST_USUAL))

    def _measure(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Squared distance to the centre, and mean squared error of the numbers that count, [rows].

        Embeddings are learned: a target that moves to meet its reconstruction would be another way
        to collapse, so they have no part in training as a target.
        """
        code = self.encoder(columns)
        target = columns.detach() if self.training else columns
        errors = (self.decoder(code).float() - target).square()
        numbers = self.inputs.numbers
        if (counted := self.inputs.mask_padding(columns[:, :numbers].T)) is not None:
            errors = torch.cat([errors[:, :numbers] * counted.T, errors[:, numbers:]], 1)
        return (code.float() - self.centre).square().sum(1), errors.mean(1)
