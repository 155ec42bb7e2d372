"""Variational autoencoder: an autoencoder whose bottleneck is a normal distribution."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.detectors.autoencoder import Autoencoder, AutoencoderConfig
from models.detectors.detector import expect
from models.detectors.search_space import Between, Space
from models.layers.mlp import mlp, run
from models.layout import Layout


@dataclass(frozen=True)
class VariationalAutoencoderConfig(AutoencoderConfig):
    """Options of `variational_autoencoder`: those of `autoencoder` and the weight of the prior."""

    beta: float = 0.1  # weight of the divergence from the prior; 1 gives the evidence lower bound

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(0 < self.beta < math.inf, self, "beta", "more than 0")


# Log variances are clamped here: beyond it they change nothing, and their exponential overflows.
_WIDEST = 10.0


class VariationalAutoencoder(Autoencoder):
    """An autoencoder whose bottleneck is a distribution, kept near a standard normal.

    Kingma & Welling (ICLR 2014), with a weight on the divergence (Higgins et al., ICLR 2017).

    The loss of a row is the autoencoder's, at a code drawn from N(mu, sigma^2), plus beta times
    KL(N(mu, sigma^2) || N(0, 1)), in nats. The score is the autoencoder's at the code mu, so that
    it is not random.
    """

    Config = VariationalAutoencoderConfig

    @classmethod
    def space(cls) -> Space:
        return {**super().space(), "beta": Between(0.01, 1.0, log=True)}

    def __init__(self, layout: Layout, config: VariationalAutoencoderConfig) -> None:
        super().__init__(layout, config)
        self.encoder = mlp((self.inputs.width, *config.widths, 2 * self.latent))

    def _reconstruct(self, columns: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        mean, log_variance = run(self.encoder, columns, dropout).float().chunk(2, 1)
        log_variance = log_variance.clamp(-_WIDEST, _WIDEST)
        code = mean
        if self.training:
            code = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return run(self.decoder, code, dropout).float(), self.config.beta * divergence

    def _decode(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        mean = run(self.encoder, columns, dropout)[:, : self.latent]
        return run(self.decoder, mean.contiguous(), dropout, by_columns=True).float()
