"""Diffusion time estimation (DTE): how much noise a row seems to contain."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch
from models.detectors.bases.integrated_gradients_detector import IntegratedGradientsDetector
from models.detectors.detector import expect, expect_widths
from models.detectors.search_space import Between, OneOf, Space
from models.layers.mlp import mlp, run
from models.layout import Layout


@dataclass(frozen=True)
class DiffusionTimeConfig:
    """Options of `diffusion_time`. The defaults are the paper's where it gives them."""

    widths: tuple[int, ...] = (256, 512, 256)  # units of the hidden layers
    dropout: float = 0.5  # share of units dropped in training after the first hidden layer, 0 to 1
    times: int = 400  # steps of the diffusion
    bins: int = 7  # classes into which the steps are divided
    last_beta: float = 0.01  # variance added in the last step; the first step adds 1e-4
    steps: int = 48  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect_widths(self)
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(self.times >= 2, self, "times", "2 or more")
        expect(2 <= self.bins <= self.times, self, "bins", "2 or more, at most `times`")
        expect(1e-4 < self.last_beta < 1, self, "last_beta", "more than 0.0001, below 1")
        expect(self.steps >= 1, self, "steps", "1 or more")


class DiffusionTime(IntegratedGradientsDetector):
    """Estimates how much noise was added to a row; anomalous rows look noisy.

    DTE with classes (Livernoche et al., ICLR 2024, "On Diffusion Modeling for Anomaly Detection",
    section 4). In training each row gets the noise of a random time t of a diffusion:
    x_t = x + sqrt(1 - a_t) e, with a_t from DDPM (Ho et al., NeurIPS 2020); as in the authors'
    code, x is not shrunk. A network learns to predict the bin of t from x_t. The score is the
    expected bin of the row itself: 0 for a row among normal rows, `bins` - 1 for one that looks
    like noise.
    """

    Config = DiffusionTimeConfig
    deviation: Tensor

    @classmethod
    def space(cls) -> Space:
        return {
            "widths": OneOf(((128, 256, 128), (256, 512, 256), (256, 256))),
            "dropout": OneOf((0.0, 0.1, 0.3, 0.5)),
            "bins": OneOf((5, 7, 12)),
            "last_beta": Between(0.003, 0.1, log=True),
        }

    def __init__(self, layout: Layout, config: DiffusionTimeConfig) -> None:
        super().__init__(layout, config)
        self.layers = mlp((self.inputs.width, *config.widths, config.bins))
        beta = torch.linspace(1e-4, config.last_beta, config.times, dtype=torch.float64)
        deviation = (1 - (1 - beta).cumprod(0)).sqrt().float()
        self.register_buffer("deviation", deviation, persistent=False)  # of the noise at time t

    def loss(self, batch: Batch) -> Tensor:
        columns = self.inputs(batch)
        time, noise = self._draw_noise(columns)
        odds = self._predict(columns + self.deviation[time][:, None] * noise, self.training)
        target = time * self.config.bins // self.config.times
        # Of the probabilities instead of the logits, as in the authors' code: this limits how
        # certain the network becomes, so the score still grows for rows far away.
        return F.cross_entropy(odds, target, reduction="none")

    def score_columns(self, columns: Tensor) -> Tensor:
        odds = self._predict(columns, dropping=False)
        return odds @ torch.arange(self.config.bins, dtype=odds.dtype, device=odds.device)

    def _predict(self, columns: Tensor, dropping: bool) -> Tensor:
        """The probability of each bin: [rows, bins].

        The first hidden layer has no dropout, as in the authors' code. With it AUROC was 0.900 on
        pendigits and 0.884 on glass instead of 0.974 and 0.926 (published: 0.978 and 0.924).
        """
        dropout = self.config.dropout if dropping else 0.0
        if not dropout:
            return run(self.layers, columns, 0.0, "relu").float().softmax(1)
        first = F.relu(self.layers[0](columns))
        return run(self.layers[1:], first, dropout, "relu").float().softmax(1)

    def _draw_noise(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """A random time and noise for each row; in evaluation they are the same at every call."""
        if self.training:
            time = torch.randint(self.config.times, (len(columns),), device=columns.device)
            return time, torch.randn_like(columns)
        generator = torch.Generator().manual_seed(0)
        time = torch.randint(self.config.times, (len(columns),), generator=generator)
        noise = torch.randn(columns.shape, generator=generator)
        return time.to(columns.device), noise.to(columns)
