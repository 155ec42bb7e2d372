"""Deep semi-supervised anomaly detection: distance from a centre that labelled anomalies flee."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import Layout
from models.detectors.bases.few_labels import FewLabels
from models.detectors.detector import expect
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.mlp import run

# Keeps the inverse distance of an anomaly at the centre finite; the authors' figure.
_EPSILON = 1e-6


@dataclass(frozen=True)
class DeepSADConfig:
    """Options of `deep_sad`."""

    widths: tuple[int, ...] = (128, 64)  # units of the hidden layers
    latent: int = 32  # dimensions of the space that distances are taken in
    steps: int = 32  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect(all(w >= 1 for w in self.widths), self, "widths", "1 or more each")
        expect(self.latent >= 1, self, "latent", "1 or more")
        expect(self.steps >= 1, self, "steps", "1 or more")


class DeepSAD(FewLabels):
    """Squared distance from a fixed centre (Ruff et al., ICLR 2020, equation 7): small for rows
    that are not known as anomalous, its inverse small for labelled anomalies.

    The layers have no bias, and the centre is not 0: else the network could map every row to it.
    The centre is drawn once, not taken from a first pass over the rows as its authors do: it
    needs no data, and so is the same on every rank.
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
