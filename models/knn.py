"""k nearest neighbours: rows far from all normal ones are anomalous."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.detector import Batch, Contributions, Detector, Layout, expect
from models.inputs import Inputs
from models.refusal import Refusal
from models.space import OneOf, Space

_ROWS = 256  # compared with the whole sample at a time: 20 MB of distances to 20,000 rows


@dataclass(frozen=True)
class KNNConfig:
    """Options of `knn`."""

    neighbours: int = 5  # the distance to this neighbour counts
    sample_rows: int = 20_000  # rows of the training days that are kept, drawn uniformly

    def __post_init__(self) -> None:
        expect(self.neighbours >= 1, self, "neighbours", "1 or more")
        expect(self.sample_rows >= 1, self, "sample_rows", "1 or more")


class KNN(Detector):
    """Distance to the k-th nearest row of the sample (Ramaswamy et al., SIGMOD 2000), Euclidean,
    over scaled numbers and one-hot categories.

    Shares split the distance by the squared differences from that neighbour: at least 0, and they
    add up to the score. `expected` is the neighbour itself: a row that was seen.
    """

    Config = KNNConfig
    learns = "sample"
    bank: Tensor
    rows: Tensor

    @classmethod
    def space(cls) -> Space:
        return {"neighbours": OneOf((1, 2, 3, 5, 10, 20, 50))}

    def __init__(self, layout: Layout, config: KNNConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        self.register_buffer("bank", torch.zeros(config.sample_rows, self.inputs.width))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))  # of the bank in use

    def loss(self, batch: Batch) -> Tensor:
        """The score: there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Keep the sample; `seed` is not needed."""
        columns = self.inputs(sample)
        if not len(columns):
            raise Refusal("expected rows to compare others with, found none")
        rows = min(len(columns), len(self.bank))
        self.bank.zero_()
        self.bank[:rows] = columns[:rows]
        self.rows.fill_(rows)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return self._neighbour(self.inputs(batch))[0]

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        distance, place = self._neighbour(columns)
        neighbour = self.bank[place]
        squares = (columns - neighbour).square()
        # The sum of the squares is the distance squared; a row that was seen has no distance.
        shares = squares / distance.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
        maps = self.inputs.maps(shares, batch)
        return Contributions(self.inputs.by_feature(shares), self.inputs.row(neighbour), maps)

    def _neighbour(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Distance to the k-th nearest row of the bank, and its place in it: [rows] each."""
        bank = self.bank[: int(self.rows)]
        count = min(self.config.neighbours, len(bank))
        squares = bank.square().sum(1)
        distances, places = [], []
        for some in torch.split(columns, _ROWS):
            # |b|^2 - 2 x b orders as the distance does, and cancels: only good to choose by.
            near = torch.addmm(squares, some, bank.T, alpha=-2).topk(count, largest=False).indices
            exact = (some[:, None] - bank[near]).square().sum(2)
            furthest = exact.max(1)
            distances.append(furthest.values.sqrt())
            places.append(near.gather(1, furthest.indices[:, None])[:, 0])
        return torch.cat(distances), torch.cat(places)
