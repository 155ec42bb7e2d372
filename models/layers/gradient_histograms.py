"""Describe series, images, sounds and videos by histograms of oriented gradients (HOG)."""

import itertools
import math

import torch
from torch import Tensor, nn

from models.layout import SignalInput

# Weight of brightness beside the gradients, which do not see it. Without it an image of one colour
# would have no description (docs/decisions/signal-descriptions.md).
_BRIGHTNESS = 0.3
_ANGLES = 8  # directions of a gradient in an image; with 4 and 12 AUROC is the same to 0.001


class Histograms(nn.Module):
    """How much a signal rises in each direction, in each cell (Dalal & Triggs, CVPR 2005).

    The gradient of each channel is projected on fixed directions (2 in a series, 8 in an image, the
    14 to the sides and corners of a cube in a video); negative projections count as 0. The parts of
    the signal above and below 0, its mean, are added as two further kinds. Each kind is averaged
    over about `cells` cells, which overlap by half, so that a small shift changes little. Then the
    root is taken, so that Euclidean distances are Hellinger distances (Arandjelović & Zisserman,
    CVPR 2012).

    In a masked series only steps that are there count, and gradients between two of them. A cell
    without any is 0, so that a short series is near to other short ones.
    """

    directions: Tensor

    def __init__(self, signal: SignalInput, cells: int) -> None:
        super().__init__()
        self.signal = signal
        self.channels = signal.shape[0] - signal.masked
        self.sides = signal.shape[1:]
        self.register_buffer("directions", _make_directions(len(self.sides)), persistent=False)
        a_side = max(1, round(cells ** (1 / len(self.sides))))
        pools = [_make_pool(side, a_side) for side in self.sides]
        for axis, pool in enumerate(pools):
            self.register_buffer(f"pool_{axis}", pool, persistent=False)
        self.kinds = len(self.directions) + 2
        self.cells = [len(pool) for pool in pools]
        self.width = self.channels * self.kinds * math.prod(self.cells)

    def forward(self, values: Tensor) -> Tensor:
        """Values [rows, *shape] to descriptions [rows, kinds * channels * cells], at least 0."""
        values, mask = self._split_mask(values)
        slopes = [_measure_slope(values, mask, axis) for axis in range(2, values.ndim)]
        steep = torch.einsum("a...,da->d...", torch.stack(slopes), self.directions)
        kinds = [steep.relu(), _BRIGHTNESS * torch.stack([values.relu(), (-values).relu()])]
        pooled = self._pool_cells(torch.cat(kinds).transpose(0, 1))
        if mask is not None:
            # The mean over the steps that are there; 0 in a cell without any.
            present = self._pool_cells(mask[:, None])
            pooled = torch.where(present > 0, pooled / present.clamp_min(1e-6), 0)
        described: Tensor = pooled.sqrt().reshape(-1, self.width)
        return described

    def distribute(self, shares: Tensor) -> Tensor:
        """Divide shares of the description [rows, width] among the numbers of the signal.

        The share of a cell is divided among the places that it averages: [rows, signal.width].
        """
        shares = shares.reshape(len(shares), self.kinds, self.channels, *self.cells).sum(1)
        for axis in range(len(self.cells)):
            shares = torch.tensordot(shares, self._get_pool(axis), ([2], [0]))
        if self.signal.masked:
            shares = torch.cat([shares, torch.zeros_like(shares[:, :1])], 1)
        return shares.reshape(-1, self.signal.width)

    def _split_mask(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.signal.masked:
            return values, None
        return values[:, :-1] * values[:, -1:], values[:, -1:]

    def _pool_cells(self, values: Tensor) -> Tensor:
        """The means over the cells, along the last axes."""
        first = values.ndim - len(self.cells)
        for axis in range(len(self.cells)):
            # tensordot moves the axis to the end: after the loop all axes are in order again.
            values = torch.tensordot(values, self._get_pool(axis), ([first], [1]))
        return values

    def _get_pool(self, axis: int) -> Tensor:
        pool: Tensor = self.get_buffer(f"pool_{axis}")
        return pool


def _make_directions(axes: int) -> Tensor:
    """Unit vectors [directions, axes]."""
    if axes == 2:
        angles = torch.arange(_ANGLES) * (2 * math.pi / _ANGLES)
        return torch.stack([angles.sin(), angles.cos()], 1)
    steps = itertools.product([-1.0, 0.0, 1.0], repeat=axes)
    chosen = [step for step in steps if sum(map(abs, step)) in (1, axes)]  # sides and corners
    return nn.functional.normalize(torch.tensor(chosen))


def _make_pool(side: int, cells: int) -> Tensor:
    """Weights [cells, side] of the places in each cell; there are at most `side` cells.

    The weights of a cell are a triangle and add up to 1. Neighbouring cells overlap by half.
    """
    cells = min(cells, side)
    middles = (torch.arange(cells) + 0.5) * (side / cells) - 0.5
    weights = (1 - (torch.arange(side) - middles[:, None]).abs() * (cells / side)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def _measure_slope(values: Tensor, mask: Tensor | None, axis: int) -> Tensor:
    """Central differences along an axis, one-sided at the ends; 0 beside a missing step."""
    last = values.shape[axis] - 1
    places = torch.arange(last + 1, device=values.device)
    before, after = (places - 1).clamp_min(0), (places + 1).clamp_max(last)
    slope = (values.index_select(axis, after) - values.index_select(axis, before)) / 2
    if mask is not None:
        slope = slope * mask.index_select(axis, after) * mask.index_select(axis, before)
    return slope
