"""Nearest neighbours: rows far from all normal ones, for the place they are in, are anomalous."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch, Contributions, Layout
from models.detectors.detector import Detector, expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import Inputs
from models.refusal import Refusal

# Compared with the whole sample at a time: 10 MB of distances to 20,000 rows.
_ROWS = 128
# The nearest rows lie in the blocks with the smallest minima, at most one a neighbour: 25,000 rows
# a second and core at 20 features and 20,000 rows of sample, against 18,000 by one selection.
_BLOCK = 50
# Where rows repeat, their neighbours are at distance 0, which is no measure of a distance: no
# surroundings count as narrower than this share of the usual ones.
_NARROWEST = 0.01


@dataclass(frozen=True)
class KNNConfig:
    """Options of `knn`."""

    neighbours: int = 10  # the mean distance to so many counts
    locality: float = 0.5  # 0: the distance as it is; 1: in units of the neighbours' own distances
    sample_rows: int = 20_000  # rows of the training days that are kept, drawn uniformly

    def __post_init__(self) -> None:
        expect(self.neighbours >= 1, self, "neighbours", "1 or more")
        expect(0 <= self.locality <= 1, self, "locality", "0 to 1")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class _Neighbours(NamedTuple):
    """The neighbours of some rows, in the bank."""

    distances: Tensor  # float32 [rows, neighbours], Euclidean
    places: Tensor  # int64 [rows, neighbours]


class KNN(Detector):
    """Mean distance to the k nearest rows of the sample (Angiulli & Pizzuti, PKDD 2002),
    Euclidean, over scaled numbers and one-hot categories, for the width of the surroundings:

        score = mean_i d(x, b_i) / (mean_i r(b_i) / R) ^ locality

    with r(b) the mean distance of a row of the sample to its own k nearest, and R the median of r.
    At locality 0 that is the distance, at 1 the simplified local outlier factor (Schubert et al.,
    DMKD 2014) times R. Between them lies what is best on tables: a sparse region is normal too,
    and yet a gap in it is a gap. Mean AUROC over 17 ADBench sets, two seeds, of at most 20,000
    rows each: 0.892 at locality 0, 0.896 at 0.25, 0.898 at 0.5, 0.890 at 0.75, 0.842 at 1. The
    defaults are the best of nine of the sets (0.827 to 0.837); on the other eight, 0.966 to 0.968.
    The first sweep saw all 17, so even these are no fresh sets.

    Shares split each distance by the squared differences from that neighbour: at least 0, and they
    add up to the score. `expected` is the nearest neighbour itself: a row that was seen.
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
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))  # of the bank in use
        self.register_buffer("radius", torch.zeros(config.sample_rows))  # r of each row
        self.register_buffer("usual", torch.ones(()))  # R

    def make_inputs(self, layout: Layout) -> Inputs:
        """The columns that distances are taken over."""
        return Inputs(layout, embed=False)

    def loss(self, batch: Batch) -> Tensor:
        """The score: there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Keep the sample and how far apart its rows are; `seed` is not needed."""
        columns = self.inputs(sample)
        if not len(columns):
            raise Refusal("expected rows to compare others with, found none")
        rows = min(len(columns), len(self.bank))
        self.bank.zero_()
        self.bank[:rows] = columns[:rows]
        self.rows.fill_(rows)
        self.radius.zero_()
        if not self.config.locality or rows < 2:
            return
        # The nearest of a row of the bank is itself, or one like it.
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
            # The sum of the squares is the distance squared; a row that was seen has no distance.
            shares += squares / distance.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        shares *= (self._weigh_surroundings(near) / near.distances.shape[1])[:, None]
        nearest = near.places.gather(1, near.distances.argmin(1, keepdim=True))[:, 0]
        maps = self.inputs.map_places(shares, batch)
        expected = self.inputs.decode(self.bank[nearest])
        return Contributions(self.inputs.sum_by_feature(shares), expected, maps)

    def _weigh_surroundings(self, near: _Neighbours) -> Tensor:
        """What a row's mean distance is multiplied with for its surroundings: [rows]."""
        width = self.radius[near.places].mean(1) / self.usual
        return width.clamp_min(_NARROWEST).pow(-self.config.locality)

    def _find_nearest(self, columns: Tensor, count: int) -> _Neighbours:
        """The nearest rows of the bank, at most `count`, in no order."""
        bank = self.bank[: int(self.rows)]
        count = min(count, len(bank))
        squares = bank.square().sum(1)
        distances, places = [], []
        for some in torch.split(columns, _ROWS):
            # |b|^2 - 2 x b orders as the distance does, and cancels: only good to choose by.
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
