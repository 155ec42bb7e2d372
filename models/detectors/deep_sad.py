"""Deep SAD: deep semi-supervised anomaly detection with a few labelled anomalies."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.detectors.bases.few_labels import FewLabels
from models.detectors.detector import expect
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.mlp import run
from models.layout import Layout

# Keeps the inverse distance finite for an anomaly at the centre; the authors' value.
_EPSILON = 1e-6


@dataclass(frozen=True)
class DeepSADConfig:
    """Options of `deep_sad`."""

    widths: tuple[int, ...] = (128, 64)  # units of the hidden layers
    latent: int = 32  # dimensions of the space in which distances are measured
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect(all(w >= 1 for w in self.widths), self, "widths", "1 or more each")
        expect(self.latent >= 1, self, "latent", "1 or more")
        expect(self.steps >= 1, self, "steps", "1 or more")


class DeepSAD(FewLabels):
    """Maps rows near a fixed point and labelled anomalies away from it; scores by the distance.

    The loss is the squared distance from the centre, for a labelled anomaly its inverse (Ruff et
    al., ICLR 2020, equation 7). The layers have no bias and the centre is not 0, or else the
    network could map every row to the centre. The authors take the centre from a first pass over
    the rows; here it is drawn at random, which needs no data and is the same on every rank.
    """

    Config = DeepSADConfig
    centre: Tensor

    @classmethod
    def space(cls) -> Space:
        return {"widths": WIDTHS, "latent": OneOf((8, 16, 32, 64))}

    def __init__(self, layout: Layout, config: DeepSADConfig) -> None:
        super().__init__(layout, config)
        widths = (self.inputs.width, *config.widths, config.latent)
        self.layers = nn.ModuleList(
            nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)
        )
        self.register_buffer("centre", torch.randn(config.latent).sign() * config.latent**-0.5)

    def losses(self, columns: Tensor, anomalous: Tensor) -> Tensor:
        distance = self.score_columns(columns)
        return torch.where(anomalous, 1 / (distance + _EPSILON), distance)

    def score_columns(self, columns: Tensor) -> Tensor:
        output = run(self.layers, columns).float()
        return (output - self.centre).square().sum(1)
