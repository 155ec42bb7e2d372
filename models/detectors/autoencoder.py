"""Dense autoencoder: a network that must pass each row through a few numbers and rebuild it."""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect, expect_widths
from models.detectors.search_space import WIDTHS, OneOf, Space
from models.layers.dense_inputs import Inputs, one_hot, stack_codes
from models.layers.mlp import mlp, run
from models.layout import Layout
from models.refusal import Refusal


@dataclass(frozen=True)
class AutoencoderConfig:
    """Options of `autoencoder`. The defaults are the same for all tables."""

    widths: tuple[int, ...] = (256, 128)  # units of the encoder's layers; the decoder mirrors them
    latent: int | None = None  # units of the bottleneck; None: square root of the input's width
    noise: float = 0.0  # denoising: deviation of the noise on real inputs, in scaled units
    mask: float = 0.0  # denoising: share of features set to 0 in training, 0 to 1
    dropout: float = 0.0  # share of hidden units dropped in training, 0 to 1
    floor: float = 1e-3  # least held-back mean squared residual, in squared scaled units

    def __post_init__(self) -> None:
        expect_widths(self)
        expect(self.latent is None or self.latent >= 1, self, "latent", "1 or more, or null")
        expect(0 <= self.noise < math.inf, self, "noise", "0 or more")
        expect(0 <= self.mask < 1, self, "mask", "0 or more, below 1")
        expect(0 <= self.dropout < 1, self, "dropout", "0 or more, below 1")
        expect(0 < self.floor < math.inf, self, "floor", "more than 0")


# Beyond this residual, in scaled units, the loss of a real feature grows linearly (Huber 1964), so
# that one unclipped column with outliers does not determine the gradient.
HUBER = 5.0
# The usual error of one number of a signal is averaged with the mean error of the signal, which
# counts as this many rows (docs/decisions/reconstruction-score.md).
PRIOR = 10


class Autoencoder(Detector):
    """Rebuilds a row from a few numbers; a feature is anomalous if its error is larger than usual.

    Reals are rebuilt by value, binaries and categories by probability. All numbers of a signal are
    reals, without padding; a text is rebuilt as the frequency of each code.

    The loss of a row is the sum of the squared (Huber) errors of the reals and the cross-entropies
    of binaries and categories. The score is

        sum over features f of  log(1 + r_f^2 / v_f)

    where r_f^2 is the squared residual (for a category the Brier score, the sum over its codes of
    (one-hot - probability)^2) and v_f is the mean of r_f^2 over held-back rows, at least `floor`.
    Up to a constant this is the negative log-likelihood of Cauchy-distributed residuals (Barron,
    CVPR 2019, "A General and Adaptive Robust Loss Function", alpha = 0). A signal of d numbers is
    one feature with multivariate Cauchy residuals:

        (d + 1) / 2 log(1 + sum over its numbers f of  r_f^2 / v_f)

    docs/decisions/reconstruction-score.md compares this with other scores.

    Shares are the terms of the score, at least 0; that of a signal is divided among its numbers in
    proportion to r_f^2 / v_f. `expected` is the reconstruction: binaries as probabilities,
    categories as the most probable code.
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
        known = [i.kind == "binary" for i in layout.numeric]
        binary[: len(layout.numeric)] = torch.tensor(known)
        self.register_buffer("binary", binary, persistent=False)
        self.has_binary = any(known)
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
        """Measure the mean squared residual of each feature. Raises Refusal without rows."""
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
        """What each residual adds to the score, [features, rows]; overwrites `squares`."""
        terms = squares.div_(self.variance[:, None])
        whole = [_weigh_signal(terms[block]) for block in self.signals]
        terms.log1p_()
        for block, values in zip(self.signals, whole, strict=True):
            terms[block] = values
        return terms

    def _corrupt(self, columns: Tensor) -> Tensor:
        """Add training noise: Gaussian on the reals, and whole features set to 0."""
        n = self.inputs.numbers
        if self.config.noise:
            noise = self.config.noise * torch.randn_like(columns[:, :n])
            columns = torch.cat([columns[:, :n] + noise * ~self.binary, columns[:, n:]], 1)
        if self.config.mask:
            shape = (len(columns), n + len(self.sizes))
            keep = (torch.rand(shape, device=columns.device) >= self.config.mask).to(columns.dtype)
            masks = [keep[:, n + j, None].expand(-1, s) for j, s in enumerate(self.inputs.sizes)]
            columns = columns * torch.cat([keep[:, :n], *masks], 1)
        return columns

    def _reconstruct(self, columns: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
        """For training: the outputs of `_decode`, and a term of the loss of each row [rows]."""
        out = self._decode(columns, dropout)
        return out, out.new_zeros(len(out))

    def _decode(self, columns: Tensor, dropout: float = 0.0) -> Tensor:
        """Outputs [rows, width]: the numeric columns, then logits. Binaries are logits too."""
        # float: under autocast only the matrix products are bf16, not losses and residuals.
        latent = run(self.encoder, columns, dropout)
        return run(self.decoder, latent, dropout, by_columns=True).float()

    def _split_outputs(self, out: Tensor, dim: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The numeric columns and the block of each category, along dimension `dim`."""
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
            # Not sum p^2 - 2 p_hit + 1, which cancels near 0, where the score is most sensitive.
            misses = block.softmax(0)
            if torch.onnx.is_in_onnx_export():
                misses = misses - one_hot(batch.codes[:, j], len(block))
            else:
                code = batch.codes[:, j][None]
                misses.scatter_add_(0, code, -torch.ones_like(code, dtype=block.dtype))
            squares.append(misses.square().sum(0, keepdim=True))
        return torch.cat(squares), numeric, logits


def _weigh_signal(terms: Tensor) -> Tensor:
    """Divide the term of a signal among its numbers: [numbers, rows]."""
    total = terms.sum(0)
    each = (len(terms) + 1) / 2 * total.log1p() / total.clamp_min(torch.finfo(total.dtype).tiny)
    return terms * each
