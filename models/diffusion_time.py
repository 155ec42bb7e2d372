"""Diffusion-time estimation: how much noise does a row look like it has had?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.detector import Batch, Layout, expect
from models.inputs import mlp, run
from models.referenced import Referenced


@dataclass(frozen=True)
class DiffusionTimeConfig:
    """Options of `diffusion_time`; the paper's where it gives one."""

    widths: tuple[int, ...] = (256, 512, 256)  # units of the hidden layers
    dropout: float = 0.5  # share of hidden units dropped in training, 0 to 1
    times: int = 300  # steps of the diffusion
    bins: int = 7  # classes that the times are put in
    last_beta: float = 0.01  # variance added in the last step; the first adds 1e-4
    steps: int = 48  # nodes of the integral behind the contributions

    def __post_init__(self) -> None:
        expect(
            len(self.widths) > 0 and all(w >= 1 for w in self.widths),
            self,
            "widths",
            "at least one width, each 1 or more",
        )
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(self.times >= 2, self, "times", "2 or more")
        expect(2 <= self.bins <= self.times, self, "bins", "2 or more, at most `times`")
        expect(1e-4 < self.last_beta < 1, self, "last_beta", "more than 0.0001, below 1")
        expect(self.steps >= 1, self, "steps", "1 or more")


class DiffusionTime(Referenced):
    """DTE with classes (Livernoche et al., ICLR 2024, "On Diffusion Modeling for Anomaly
    Detection", section 4).

    Rows are noised as in DDPM (Ho et al., NeurIPS 2020, equation 4), x_t = sqrt(a_t) x +
    sqrt(1 - a_t) e, at a time t drawn for each, and a network learns to tell the bin of t from
    x_t alone. The score is the expected bin of a row as it is: 0 for one that lies among normal
    rows, `bins` - 1 for one that looks like noise only.
    """

    Config = DiffusionTimeConfig
    kept: Tensor

    def __init__(self, layout: Layout, config: DiffusionTimeConfig) -> None:
        super().__init__(layout, config)
        self.layers = mlp((self.inputs.width, *config.widths, config.bins))
        beta = torch.linspace(1e-4, config.last_beta, config.times, dtype=torch.float64)
        self.register_buffer("kept", (1 - beta).cumprod(0).float(), persistent=False)  # a_t

    def loss(self, batch: Batch) -> Tensor:
        columns = self.inputs(batch)
        time, noise = self._drawn(columns)
        kept = self.kept[time][:, None]
        noised = kept.sqrt() * columns + (1 - kept).sqrt() * noise
        logits = run(self.layers, noised, self.config.dropout if self.training else 0.0).float()
        return F.cross_entropy(
            logits, time * self.config.bins // self.config.times, reduction="none"
        )

    def _drawn(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """A time and noise for each row; in evaluation the same every time."""
        if self.training:
            time = torch.randint(self.config.times, (len(columns),), device=columns.device)
            return time, torch.randn_like(columns)
        generator = torch.Generator().manual_seed(0)
        time = torch.randint(self.config.times, (len(columns),), generator=generator)
        noise = torch.randn(columns.shape, generator=generator)
        return time.to(columns.device), noise.to(columns)

    def score_columns(self, columns: Tensor) -> Tensor:
        odds = run(self.layers, columns).float().softmax(1)
        return odds @ torch.arange(self.config.bins, dtype=odds.dtype, device=odds.device)
