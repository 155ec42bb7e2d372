"""Dense autoencoder: rows that its bottleneck cannot carry are anomalous."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions, Layout
from models.detectors.detector import Detector, expect
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.dense_inputs import Inputs, stack_codes
from models.layers.mlp import mlp, run
from models.refusal import Refusal


@dataclass(frozen=True)
class AutoencoderConfig:
    """Options of `autoencoder`. One default for all tables: nothing here needs tuning a table."""

    widths: tuple[int, ...] = (256, 128)  # units of the encoder's layers; the decoder mirrors them
    latent: int | None = None  # units of the bottleneck; None: square root of the input's width
    noise: float = 0.0  # denoising: deviation of Gaussian noise on real inputs, in scaled units
    mask: float = 0.0  # denoising: share of features blanked in training, 0 to 1
    dropout: float = 0.0  # share of hidden units dropped in training, 0 to 1
    floor: float = 1e-3  # least held-back mean squared residual, in squared scaled units

    def __post_init__(self) -> None:
        expect(
            len(self.widths) > 0 and all(w >= 1 for w in self.widths),
            self,
            "widths",
            "at least one width, each 1 or more",
        )
        expect(self.latent is None or self.latent >= 1, self, "latent", "1 or more, or null")
        expect(0 <= self.noise < math.inf, self, "noise", "0 or more")
        expect(0 <= self.mask < 1, self, "mask", "0 or more, below 1")
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(0 < self.floor < math.inf, self, "floor", "more than 0")


# Beyond this residual, in scaled units, the loss of a real feature grows linearly (Huber 1964):
# an unclipped column of a contaminated table must not own the gradient.
HUBER = 5.0
# Rows that the mean error of a signal counts as in the error of one of its numbers: 30 held-back
# images leave the error of a pixel to chance. 0 was worse by 0.008 in mean AUROC over three of the
# classes named below, 3 by 0.001.
PRIOR = 10


class Autoencoder(Detector):
    """Reconstructs each feature in its own kind: reals by value, binaries and categories by odds;
    of signals every number but padding, of texts how often each code occurs, as reals.

    The loss of a row is the sum of squared (Huber) errors of the reals and of the cross-entropies
    of binaries and categories. The score is

        sum over inputs f of  log(1 + r_f^2 / v_f)

    with r_f^2 the squared residual (for a category: the Brier score, the sum over its codes of
    (one-hot - probability)^2) and v_f the mean of r_f^2 over held-back rows, at least `floor`.
    It is the negative log-likelihood of Cauchy-distributed residuals up to a constant
    (Barron, CVPR 2019, "A General and Adaptive Robust Loss Function", alpha = 0): a feature
    is judged on its own usual error, and none can drown the others. Tried on three sets of flows
    and lost, in AUROC: the plain sum of r_f^2 (0.002 to 0.006 worse), the sum of r_f^2 / v_f (0
    to 0.005 worse), a mask of 0.15 in training (0 to 0.008 worse).

    A signal is one variable of d numbers, its residuals multivariate Cauchy:

        (d + 1) / 2 log(1 + sum over its numbers f of  r_f^2 / v_f)

    With a logarithm a number, an image that is wrong in one place looked like one that is a little
    off everywhere: mean AUROC 0.828 instead of 0.869 over two classes of Fashion-MNIST and two
    spoken digits, dense and convolutional. v_f is drawn towards the mean over the signal, as if
    that had been seen in PRIOR rows more.

    Shares are the terms of the score, a signal's divided in proportion to r_f^2 / v_f, so they are
    at least 0 and add up to it. `expected` is the reconstruction; binaries as probabilities,
    categories by the most probable code.
    """

    Config = AutoencoderConfig
    variance: Tensor
    binary: Tensor

    @classmethod
    def space(cls) -> Space:
        return {
            "widths": WIDTHS,
            "latent": OneOf((None, 4, 8, 16, 32)),
            "noise": OneOf((0.0, 0.1, 0.3)),
            "mask": OneOf((0.0, 0.15, 0.3)),
            "dropout": OneOf((0.0, 0.1, 0.3)),
        }

    def __init__(self, layout: Layout, config: AutoencoderConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=True)
        self.sizes = [c.size for c in layout.categories]
        self.latent = config.latent or max(2, round(math.sqrt(self.inputs.width)))
        outputs = self.inputs.numbers + sum(self.sizes)
        self.encoder = mlp((self.inputs.width, *config.widths, self.latent))
        self.decoder = mlp((self.latent, *config.widths[::-1], outputs))
        binary = torch.zeros(self.inputs.numbers, dtype=torch.bool)
        binary[: len(layout.numeric)] = torch.tensor([i.kind == "binary" for i in layout.numeric])
        self.register_buffer("binary", binary, persistent=False)
        self.has_binary = bool(binary.any())
        ends = itertools.accumulate((s.width for s in layout.signals), initial=len(layout.numeric))
        self.signals = [slice(a, b) for a, b in itertools.pairwise(ends)]  # rows of the residuals
        self.register_buffer("variance", torch.ones(self.inputs.numbers + len(self.sizes)))

    def loss(self, batch: Batch) -> Tensor:
        columns = self.inputs(batch)
        noisy = self._corrupt(columns) if self.training else columns
        out, penalty = self._reconstruct(noisy, self.config.dropout if self.training else 0.0)
        numeric, logits = self._split_outputs(out, 1)
        target = columns[:, : self.inputs.numbers]
        real = 2 * F.huber_loss(numeric, target, reduction="none", delta=HUBER)
        odds = F.binary_cross_entropy_with_logits(numeric, target.clamp(0, 1), reduction="none")
        errors = torch.where(self.binary, odds, real)
        if (counted := self.inputs.mask_padding(target.T)) is not None:
            errors = errors * counted.T
        loss = errors.sum(1) + penalty
        for j, block in enumerate(logits):
            loss = loss + F.cross_entropy(block, batch.codes[:, j], reduction="none")
        return loss

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        squares, _, _ = self._measure_residuals(batch)
        return self._to_terms(squares).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        squares, numeric, logits = self._measure_residuals(batch)
        codes = [block.argmax(0) for block in logits]
        expected = self.inputs.make_batch(numeric.T, stack_codes(codes, numeric.T))
        shares = self._to_terms(squares).T
        maps = self.inputs.map_places(shares, batch)
        return Contributions(self.inputs.sum_by_feature(shares), expected, maps)

    @torch.no_grad()
    def calibrate(self, batches: list[Batch]) -> None:
        """Take each feature's mean squared residual from held-back rows."""
        if not any(len(b.numeric) for b in batches):
            raise Refusal("expected held-back rows to calibrate the autoencoder on, found none")
        total = torch.zeros_like(self.variance, dtype=torch.float64)
        rows = torch.zeros_like(total)
        for batch in batches:
            total += self._measure_residuals(batch)[0].double().sum(1)
            rows += len(batch.numeric)
            counted = self.inputs.mask_padding(
                self.inputs.make_columns(batch)[: self.inputs.numbers]
            )
            if counted is not None:
                rows[: len(counted)] += (counted - 1).sum(1)
        for block in self.signals:
            usual = total[block].sum() / rows[block].sum().clamp_min(1)
            total[block] += PRIOR * usual
            rows[block] += PRIOR
        self.variance.copy_((total / rows.clamp_min(1)).clamp_min(self.config.floor))

    def _to_terms(self, squares: Tensor) -> Tensor:
        """What each residual adds to the score, [features, rows]; takes the squares' memory."""
        terms = squares.div_(self.variance[:, None])
        whole = [_weigh_signal(terms[block]) for block in self.signals]
        terms.log1p_()
        for block, values in zip(self.signals, whole, strict=True):
            terms[block] = values
        return terms

    def _corrupt(self, columns: Tensor) -> Tensor:
        """Training noise: Gaussian on the reals, whole features blanked."""
        n = self.inputs.numbers
        if self.config.noise:
            noise = self.config.noise * torch.randn_like(columns[:, :n])
            columns = torch.cat([columns[:, :n] + noise * ~self.binary, columns[:, n:]], 1)
        if self.config.mask:
            shape = (len(columns), n + len(self.sizes))
            keep = (torch.rand(shape, device=columns.device) >= self.config.mask).to(columns.dtype)
            kept = [keep[:, n + j, None].expand(-1, s) for j, s in enumerate(self.inputs.sizes)]
            columns = columns * torch.cat([keep[:, :n], *kept], 1)
        return columns

    def _reconstruct(self, columns: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        """What `_decode` gives, for training, and what else a row pays for it, [rows]."""
        out = self._decode(columns, dropout)
        return out, out.new_zeros(len(out))

    def _decode(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        """Outputs [rows, width]: the numeric columns (binaries as logits), logits a category."""
        # float: bf16 under autocast is for the products, not for losses and residuals
        latent = run(self.encoder, columns, dropout)
        return run(self.decoder, latent, dropout, by_columns=True).float()

    def _split_outputs(self, out: Tensor, dim: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The numeric columns, and the block of each category, along the dimension of columns."""
        numeric, *logits = torch.split(out, [self.inputs.numbers, *self.sizes], dim)
        return numeric, tuple(logits)

    def _measure_residuals(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Squared residuals [features, rows], and the reconstruction: numbers and logits, each
        [columns, rows] (see `Inputs.make_columns`)."""
        columns = self.inputs.make_columns(batch)
        numeric, logits = self._split_outputs(self._decode(columns.T).T.contiguous(), 0)
        if self.has_binary:
            numeric = torch.where(self.binary[:, None], numeric.sigmoid(), numeric)
        squares = [(columns[: len(numeric)] - numeric).square_()]
        if (counted := self.inputs.mask_padding(columns[: len(numeric)])) is not None:
            squares[0].mul_(counted)
        for j, block in enumerate(logits):
            # Not sum p^2 - 2 p_hit + 1: it cancels near 0, where the score is most sensitive.
            code = batch.codes[:, j][None]
            hit = torch.ones_like(code, dtype=block.dtype)
            misses = block.softmax(0).scatter_add(0, code, -hit)
            squares.append(misses.square().sum(0, keepdim=True))
        return torch.cat(squares), numeric, logits


def _weigh_signal(terms: Tensor) -> Tensor:
    """The term of a signal [rows] divided among its numbers, [numbers, rows]."""
    total = terms.sum(0)
    each = (len(terms) + 1) / 2 * total.log1p() / total.clamp_min(torch.finfo(total.dtype).tiny)
    return terms * each
