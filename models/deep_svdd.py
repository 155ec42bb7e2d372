"""Deep SVDD: a network pulls normal rows to one point; rows that stay away are anomalous."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.convolution import Painters, Towers
from models.detector import Batch, Layout, expect
from models.referenced import Referenced


@dataclass(frozen=True)
class DeepSVDDConfig:
    """Options of `deep_svdd`."""

    widths: tuple[int, ...] = (256, 128)  # units of the layers of what is not convolved
    channels: int = 16  # of the first convolution; they double as the sides are halved
    outputs: int = 32  # width of the code that is pulled to the centre
    reconstruction: float = 1.0  # weight of the term that keeps codes from becoming all one
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
_PROBES = 1024  # random rows whose mean code is the centre


class DeepSVDD(Referenced):
    """One-class Deep SVDD (Ruff et al., ICML 2018, equation 4): the score is the squared distance
    of a row's code to a centre that never moves.

    A network could send everything to the centre. What keeps it from that: no layer has a bias and
    no activation a bound (propositions 2 and 3 of the paper), no coordinate of the centre is near
    0, and a decoder must rebuild the row from its code, which stands for the pre-training of the
    paper and needs no second loop. The centre is the mean code, before training, of standard
    normal rows, which is how the encoder scales: every rank of a training finds the same one
    without seeing data.

    Signals are convolved, everything else goes through dense layers, so it fits any columns.
    """

    Config = DeepSVDDConfig
    centre: Tensor

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

    def loss(self, batch: Batch) -> Tensor:
        columns = self.inputs(batch)
        code = self.encoder(columns)
        rebuilt = self.decoder(code).float()
        # Embeddings are learned: a target that moves to meet its reconstruction would be another
        # way to collapse.
        errors = F.huber_loss(rebuilt, columns.detach(), reduction="none").mean(1)
        loss: Tensor = self._distance(code) + self.config.reconstruction * errors
        return loss

    def score_columns(self, columns: Tensor) -> Tensor:
        return self._distance(self.encoder(columns))

    def _distance(self, code: Tensor) -> Tensor:
        return (code.float() - self.centre).square().sum(1)
