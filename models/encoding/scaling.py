"""Scales numbers for the detector, and back: elementwise tensor operations on any device."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.encoding.scale import SMALLEST, Scale, read_scales
from models.searching import search_sorted

# Bound on a scaled number of a column without clipping. The sum of a thousand squares of it fits in
# float32, so a score stays finite.
UNCLIPPED = 1e15
# The normal score of the outermost knot. Ranks of the quantile sketch are off by 0.14% of the rows
# (see `moments.KLL_K`), which is the share beyond a score of 3: further knots would be noise.
WIDEST_SCORE = 3.0


class Scaling(nn.Module):
    """Scales raw inputs and adds null indicators. Its buffers are saved with the bundle.

    A `quantile` column is mapped from its quantiles to normal scores (Φ⁻¹ of the rank), linearly
    between the knots. In a uniform range, the 1-in-100 and the 1-in-1,000 value would lie 0.03
    standard deviations apart; as normal scores they lie 0.8 apart, and the tail is visible. Beyond
    the values of training, the column's standard deviation is the unit, so a larger value gets a
    larger score.
    """

    centre: Tensor  # float32 [raw]
    width: Tensor  # float32 [raw]
    clip: Tensor  # float32 [raw]
    logged: Tensor  # int64, indices of the raw inputs with log1p
    nulls: Tensor  # int64, indices of the raw inputs with a null indicator
    ranked: Tensor  # int64 [q], indices of the raw inputs scaled by quantiles
    knots: Tensor  # float32 [2, q, k]: t and normal score, padded with the last knot
    last: Tensor  # int64 [q], index of the last knot before the padding

    def __init__(self, buffers: dict[str, Tensor]) -> None:
        super().__init__()
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    @classmethod
    def from_scales(cls, scales: list[Scale], nulls: list[int]) -> "Scaling":
        """Build the buffers from a scale per raw input and the inputs with a null indicator."""
        ranked = [j for j, scale in enumerate(scales) if scale.knots]
        tables = [_make_table(scales[j]) for j in ranked]
        longest = max((table.shape[1] for table in tables), default=0)
        knots = np.zeros((2, len(ranked), longest), np.float32)
        for i, table in enumerate(tables):
            knots[:, i] = np.pad(table, ((0, 0), (0, longest - table.shape[1])), mode="edge")
        logged = [j for j, scale in enumerate(scales) if scale.log1p]
        clips = [UNCLIPPED if scale.clip is None else scale.clip for scale in scales]
        return cls(
            {
                "centre": torch.tensor([scale.centre for scale in scales]),
                "width": torch.tensor([scale.width for scale in scales]),
                "clip": torch.tensor(clips),
                "logged": torch.tensor(logged, dtype=torch.int64),
                "nulls": torch.tensor(nulls, dtype=torch.int64),
                "ranked": torch.tensor(ranked, dtype=torch.int64),
                "knots": torch.from_numpy(knots),
                "last": torch.tensor([table.shape[1] - 1 for table in tables], dtype=torch.int64),
            }
        )

    def forward(self, values: Tensor) -> Tensor:
        """float32 [rows, raw], NaN for null -> float32 [rows, raw + null indicators]."""
        # By columns (see `Inputs.columns`) and in place, so that a chunk stays in the cache.
        columns = values.T
        numbers = columns
        if len(self.logged):
            heavy = columns.index_select(0, self.logged)
            numbers = columns.index_copy(0, self.logged, heavy.sign() * heavy.abs().log1p())
        scaled = (numbers - self.centre[:, None]).div_(self.width[:, None])
        if len(self.ranked):
            scores = self._to_normal_scores(numbers.index_select(0, self.ranked))
            scaled.index_copy_(0, self.ranked, scores)
        clip = self.clip[:, None]
        scaled.clamp_(-clip, clip)
        # NaN is null; infinity was clipped, but an exported `nan_to_num_` would look for it.
        if torch.onnx.is_in_onnx_export():
            scaled = torch.where(scaled.isnan(), 0.0, scaled)
        else:
            scaled.nan_to_num_(0.0)
        if len(self.nulls):
            missing = columns.index_select(0, self.nulls).isnan().float()
            scaled = torch.cat([scaled, missing])
        return scaled.T

    def _to_normal_scores(self, columns: Tensor) -> Tensor:
        """Normal scores of t: [q, rows] to [q, rows]."""
        points, scores = self.knots[0], self.knots[1]
        columns = columns.contiguous()
        last = self.last[:, None]
        right = search_sorted(points, columns).clamp(min=1).minimum(last)
        left = right - 1
        start, floor = points.gather(1, left), scores.gather(1, left)
        share = (columns - start) / (points.gather(1, right) - start)
        inside = floor + share * (scores.gather(1, right) - floor)
        width = self.width.index_select(0, self.ranked)[:, None]
        lowest, highest = points[:, :1], points.gather(1, last)
        below = scores[:, :1] + (columns - lowest) / width
        above = scores.gather(1, last) + (columns - highest) / width
        result = torch.where(columns < lowest, below, inside)
        return torch.where(columns > highest, above, result)

    def to_scales(self) -> tuple[Scale, ...]:
        """The scale of each raw input."""
        return read_scales({name: buffer.cpu().numpy() for name, buffer in self.named_buffers()})


def _make_table(scale: Scale) -> npt.NDArray[np.float32]:
    """The knots that are distinct in float32: float32 [2, k], with k >= 2."""
    points = np.array(scale.knots, np.float32)
    kept = [points[0]]
    for knot in points[1:]:
        if (knot - kept[-1] > SMALLEST).all():
            kept.append(knot)
    if len(kept) == 1:  # a constant column: the second knot is one width away
        kept.append(kept[0] + np.array([scale.width, 1.0], np.float32))
    return np.stack(kept, axis=1)
