"""GANomaly: an autoencoder trained against a critic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from models.batch import Batch, Contributions
from models.detectors.autoencoder import Autoencoder, AutoencoderConfig
from models.detectors.detector import expect
from models.layers.convolution import Painters, Towers
from models.layers.dense_inputs import stack_codes
from models.layout import Layout


@dataclass(frozen=True)
class GANConfig(AutoencoderConfig):
    """Options of `gan`: those of `autoencoder`, the convolutions' size and the loss's weights."""

    channels: int = 8  # of the first convolution; they double each time the sides are halved
    latent_weight: float = 1.0  # weight in the loss of the error of the reconstruction's code
    adversarial_weight: float = 1.0  # weight in the loss of the critic

    def __post_init__(self) -> None:
        super().__post_init__()
        expect(self.channels >= 1, self, "channels", "1 or more")
        for field in ("latent_weight", "adversarial_weight"):
            expect(0 < getattr(self, field) < math.inf, self, field, "more than 0")


class GAN(Autoencoder):
    """Rebuilds a row and encodes the result again; trained against a critic that compares both.

    GANomaly (Akçay et al., ACCV 2018): an encoder, a decoder, a second encoder for the
    reconstruction, and a critic that distinguishes rows from reconstructions. One loss and one
    optimizer train all of them. The loss is the sum of

    - the autoencoder's loss;
    - the distance between the code and the code of the reconstruction;
    - the distance between the critic's features of the row and of the reconstruction, of which only
      the generator learns (equation 1);
    - the critic's cross-entropy. Its gradient is reversed where it enters the generator (Ganin &
      Lempitsky, ICML 2015, section 3), so that the two work against each other in the same step.

    The critic's layers have spectral norm 1 (Miyato et al., ICLR 2018), or else it becomes so
    certain that its gradient vanishes.

    The score is the autoencoder's plus the same sum over the code, log(1 + e_k^2 / u_k), with e_k
    the error of its k-th number and u_k the mean of e_k^2 over held-back rows. The error of the
    code belongs to no feature and is divided among them in proportion to their own shares.
    """

    Config = GANConfig

    def __init__(self, layout: Layout, config: GANConfig) -> None:
        super().__init__(layout, config)
        width, sizes = self.inputs.width, (config.channels, config.widths)
        outputs = self.inputs.numbers + sum(self.sizes)
        self.encoder = nn.ModuleList([Towers(layout, width, self.latent, *sizes)])
        self.decoder = nn.ModuleList([Painters(layout, self.latent, outputs, *sizes)])
        self.recoder = Towers(layout, width, self.latent, *sizes)
        self.critic = Towers(layout, width, self.latent, *sizes)  # the critic's features
        self.verdict = nn.Linear(self.latent, 1)
        for module in [*self.critic.modules(), self.verdict]:
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                spectral_norm(module)
        self.features = len(self.variance)
        self.register_buffer("variance", torch.ones(self.features + self.latent))

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        squares, numeric, logits = self._measure_residuals(batch)
        terms = self._to_terms(squares).T
        shares, latent = terms[:, : self.features], terms[:, self.features :].sum(1, keepdim=True)
        total = shares.sum(1, keepdim=True)
        shares = shares + latent * shares / total.clamp_min(torch.finfo(total.dtype).tiny)
        codes = [block.argmax(0) for block in logits]
        expected = self.inputs.make_batch(numeric.T, stack_codes(codes, numeric.T))
        maps = self.inputs.map_places(shares, batch)
        return Contributions(self.inputs.sum_by_feature(shares), expected, maps)

    def _decode(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        out: Tensor = self.decoder[0](self.encoder[0](columns, dropout))
        return out.float()

    def _reconstruct(self, columns: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        code = self.encoder[0](columns, dropout)
        out = self.decoder[0](code).float()
        numeric, logits = self._split_outputs(out, 1)
        numeric = torch.where(self.binary, numeric.sigmoid(), numeric)
        fake = self._rebuild(columns, numeric, [block.softmax(1) for block in logits])
        apart = F.huber_loss(self.recoder(fake).float(), code.float(), reduction="none").sum(1)
        game = self._play_critic(columns.detach(), fake)
        return out, self.config.latent_weight * apart + self.config.adversarial_weight * game

    def _rebuild(self, columns: Tensor, numeric: Tensor, odds: Sequence[Tensor]) -> Tensor:
        """The reconstruction as columns [rows, width].

        A category is its probabilities, or the mean embedding under them. Padding is copied.
        """
        original = columns[:, : self.inputs.numbers]
        if (counted := self.inputs.mask_padding(original.T)) is not None:
            numeric = torch.where(counted.T > 0, numeric, original)
        tables = iter(self.inputs.embeddings)
        blocks = [
            block @ next(tables).weight if embedded else block  # type: ignore[operator]
            for block, embedded in zip(odds, self.inputs.embedded, strict=True)
        ]
        return torch.cat([numeric, *blocks], 1)

    def _play_critic(self, real: Tensor, fake: Tensor) -> Tensor:
        """The distance between the critic's features of row and reconstruction, plus the critic's
        cross-entropy: [rows]. Only the generator learns from the first."""
        frozen = {name: p.detach() for name, p in self.critic.named_parameters()}
        rebuilt, features = functional_call(self.critic, frozen, (fake,)), self.critic(real)
        distance: Tensor = (rebuilt - features.detach()).float().square().sum(1)
        reversed_ = self.critic(_ReverseGradient.apply(fake))  # type: ignore[no-untyped-call]
        of_real, of_fake = self.verdict(features).float(), self.verdict(reversed_).float()
        entropy: Tensor = (F.softplus(-of_real) + F.softplus(of_fake)).squeeze(1)
        return distance + entropy

    def _measure_residuals(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Residuals as of the autoencoder, then the squared errors of the code as further rows."""
        squares, numeric, logits = super()._measure_residuals(batch)
        columns = self.inputs(batch)
        fake = self._rebuild(columns, numeric.T, [block.softmax(0).T for block in logits])
        apart = (self.recoder(fake) - self.encoder[0](columns)).float().square()
        return torch.cat([squares, apart.T]), numeric, logits


class _ReverseGradient(torch.autograd.Function):
    """Passes values on and reverses the sign of their gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient
