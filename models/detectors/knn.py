"""k nearest neighbours: the distance to the most similar rows of a sample."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal

# Rows that are compared with the sample at once: 10 MB of distances to 20,000 rows. A GPU would
# wait for each of these pieces, and has memory for this many bytes of distances.
_ROWS = 128
_GPU_BYTES = 256 * 1024**2
# The k smallest distances lie in the k blocks with the smallest minima. Looking only there is 1.4
# times as fast (docs/decisions/fast-cpu-scoring.md).
_BLOCK = 50
# The neighbours of repeated rows are at distance 0, by which nothing can be divided: surroundings
# count as at least this share of the median.
_NARROWEST = 0.01


@dataclass(frozen=True)
class KNNConfig:
    """Options of `knn`."""

    neighbours: int = 10  # number of nearest rows whose mean distance counts
    locality: float = 0.5  # 0: plain distance; 1: relative to the neighbours' own distances
    sample_rows: int = 20_000  # rows of the training days that it stores, drawn uniformly

    def __post_init__(self) -> None:
        expect(self.neighbours >= 1, self, "neighbours", "1 or more")
        expect(0 <= self.locality <= 1, self, "locality", "0 to 1")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class _Neighbours(NamedTuple):
    """The nearest rows of the bank, for each of some rows."""

    distances: Tensor  # float32 [rows, neighbours], Euclidean
    places: Tensor  # int64 [rows, neighbours], in the bank


class KNN(Detector):
    """Distance to the nearest rows of a sample, relative to how far these are from each other.

    The score is the mean distance to the k nearest rows (Angiulli & Pizzuti, PKDD 2002), Euclidean,
    over scaled numbers and one-hot categories, divided by a power of the width of the surroundings:

        score = mean_i d(x, b_i) / (mean_i r(b_i) / R) ^ locality

    with r(b) the mean distance of a sample row b to its own k nearest rows, and R the median of r.
    With locality 0 this is the mean distance, with 1 the simplified local outlier factor (Schubert
    et al., DMKD 2014) times R. In between is best on tables (docs/decisions/knn-locality.md).

    Shares divide each distance in proportion to the squared differences from that neighbour, at
    least 0. `expected` is the nearest row of the sample.
    """

    Config = KNNConfig
    learns = "sample"
    bank: Tensor
    rows: Tensor
    radius: Tensor
    usual: Tensor

    @classmethod
    def space(cls) -> Space:
        return {
            "neighbours": OneOf((1, 2, 3, 5, 10, 20, 50)),
            "locality": OneOf((0.0, 0.25, 0.5, 0.75)),
        }

    def __init__(self, layout: Layout, config: KNNConfig) -> None:
        super().__init__(layout, config)
        self.inputs = self.make_inputs(layout)
        self.register_buffer("bank", torch.zeros(config.sample_rows, self.inputs.width))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))  # used rows of the bank
        self.register_buffer("radius", torch.zeros(config.sample_rows))  # r of each row
        self.register_buffer("usual", torch.ones(()))  # R
        self._used = 0  # as `rows`, which a GPU would have to be asked for

    def make_inputs(self, layout: Layout) -> Inputs:
        """The module that turns a batch into the columns that are compared."""
        return Inputs(layout, embed=False)

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Store the sample and the radius of each row; `seed` is not used.

        Raises Refusal if there are no rows.
        """
        columns = self.inputs(sample)
        if not len(columns):
            raise Refusal("expected rows to compare others with, found none")
        rows = min(len(columns), len(self.bank))
        self.bank.zero_()
        self.bank[:rows] = columns[:rows]
        self.rows.fill_(rows)
        self._used = rows
        self.radius.zero_()
        if not self.config.locality or rows < 2:
            return
        # The nearest row to a row of the bank is itself, or an equal one: it is left out.
        near = self._find_nearest(self.bank[:rows], self.config.neighbours + 1).distances
        self.radius[:rows] = near.sort(1).values[:, 1:].mean(1)
        apart = self.radius[self.radius > 0]
        self.usual.copy_(apart.median() if len(apart) else self.usual.new_ones(()))

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        near = self._find_nearest(self.inputs(batch), self.config.neighbours)
        return near.distances.mean(1) * self._weigh_surroundings(near)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        near = self._find_nearest(columns, self.config.neighbours)
        shares = torch.zeros_like(columns)
        for distance, place in zip(near.distances.T, near.places.T, strict=True):
            squares = (columns - self.bank[place]).square()
            # The squares add up to the squared distance, which is 0 for a row of the bank.
            shares += squares / distance.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        shares *= (self._weigh_surroundings(near) / near.distances.shape[1])[:, None]
        nearest = near.places.gather(1, near.distances.argmin(1, keepdim=True))[:, 0]
        maps = self.inputs.map_places(shares, batch)
        expected = self.inputs.decode(self.bank[nearest])
        return Contributions(self.inputs.sum_by_feature(shares), expected, maps)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._used = int(self.rows)

    def _weigh_surroundings(self, near: _Neighbours) -> Tensor:
        """The factor of a row's mean distance for the width of its surroundings: [rows]."""
        width = self.radius[near.places].mean(1) / self.usual
        return width.clamp_min(_NARROWEST).pow(-self.config.locality)

    def _find_nearest(self, columns: Tensor, count: int) -> _Neighbours:
        """The `count` nearest rows of the bank, or all if it has fewer; in no order."""
        bank = self.bank[: self._used]
        count = min(count, len(bank))
        squares = bank.square().sum(1)
        distances, places = [], []
        rows = _ROWS
        if bank.device.type != "cpu":
            rows = max(rows, _GPU_BYTES // (bank.element_size() * max(1, len(bank))))
        for some in torch.split(columns, rows):
            # |b|^2 - 2 x b has the order of the distances, but rounds too much to be used as one.
            near = _find_smallest(torch.addmm(squares, some, bank.T, alpha=-2), count)
            distances.append((some[:, None] - bank[near]).square().sum(2).sqrt())
            places.append(near)
        return _Neighbours(torch.cat(distances), torch.cat(places))


def _find_smallest(values: Tensor, count: int) -> Tensor:
    """Places of the `count` smallest values of each row of [rows, width]: int64 [rows, count]."""
    if values.shape[1] < 2 * count * _BLOCK:
        return values.topk(count, largest=False).indices
    blocks = F.pad(values, (0, -values.shape[1] % _BLOCK), value=torch.inf)
    blocks = blocks.reshape(len(values), blocks.shape[1] // _BLOCK, _BLOCK)
    chosen = blocks.amin(2).topk(count, largest=False).indices
    inside = blocks.gather(1, chosen[:, :, None].expand(-1, -1, _BLOCK)).flatten(1)
    place = inside.topk(count, largest=False).indices
    return torch.add(chosen.gather(1, place // _BLOCK) * _BLOCK, place % _BLOCK)
