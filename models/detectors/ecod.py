"""ECOD: how far each value lies in the tails of its column. It has nothing to tune."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.layers.dense_inputs import Inputs, stack_codes
from models.layout import Layout
from models.refusal import Refusal
from models.searching import search_sorted


@dataclass(frozen=True)
class ECODConfig:
    """Options of `ecod`."""

    sample_rows: int = 10_000  # rows of the training days whose distribution it stores

    def __post_init__(self) -> None:
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class ECOD(Detector):
    """Adds up how rare each value is in its own column: tails of numbers, rare categories.

    Empirical cumulative distributions (Li et al., TKDE 2022, algorithm 1). The term of a numeric
    column is -log of the share of the sample at or below the value, or at or above it, whichever is
    larger; the authors' code chooses column by column too. The term of a category is -log of the
    share of its code. Half a row is assumed beyond all values of the sample. The score is the sum
    of the terms, which are also the shares, at least 0. `expected` is the median, and for each
    category the most frequent code.
    """

    Config = ECODConfig
    learns = "sample"
    ordered: Tensor
    rows: Tensor
    counts: Tensor

    def __init__(self, layout: Layout, config: ECODConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        columns, widest = self.inputs.numbers, max((c.size for c in layout.categories), default=0)
        # The sample of each column in ascending order, then infinity.
        self.register_buffer("ordered", torch.full((columns, config.sample_rows), torch.inf))
        self.register_buffer("rows", torch.zeros((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(len(layout.categories), widest))

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Store the distribution of each column; `seed` is not used.

        Raises Refusal for fewer than 2 rows.
        """
        rows = min(len(sample.numeric), self.config.sample_rows)
        if rows < 2:
            raise Refusal(f"expected at least 2 rows to take distributions of, found {rows}")
        columns = self._make_columns(sample)[:, :rows]
        self.ordered.fill_(torch.inf)
        self.ordered[:, :rows] = columns.sort(1).values
        self.rows.fill_(rows)
        for j, category in enumerate(self.layout.categories):
            codes = sample.codes[:rows, j]
            self.counts[j, : category.size] = torch.bincount(codes, minlength=category.size)

    @torch.no_grad()
    def score(self, batch: Batch) -> Tensor:
        return self._measure_tails(batch).sum(0)

    @torch.no_grad()
    def contributions(self, batch: Batch) -> Contributions:
        terms = self._measure_tails(batch).T
        rows = len(terms)
        middle = self.ordered[:, int(self.rows) // 2].expand(rows, -1)
        usual = [self.counts[j].argmax().expand(rows) for j in range(len(self.counts))]
        expected = self.inputs.make_batch(middle, stack_codes(usual, middle))
        maps = self.inputs.map_places(terms, batch)
        return Contributions(self.inputs.sum_by_feature(terms), expected, maps)

    def _make_columns(self, batch: Batch) -> Tensor:
        return self.inputs.make_columns(batch)[: self.inputs.numbers].contiguous()

    def _measure_tails(self, batch: Batch) -> Tensor:
        """-log of the tail of each value: [features, rows]."""
        columns, rows = self._make_columns(batch), self.rows
        below = search_sorted(self.ordered, columns, right=True)
        above = rows - search_sorted(self.ordered, columns)
        rarest = torch.minimum(below, above).float()
        parts = [
            rarest,
            *(self.counts[j][batch.codes[:, j]][None] for j in range(len(self.counts))),
        ]
        shares = torch.cat(parts).clamp_min(0.5) / rows
        # The only value of a column has a tail of 1 on both sides: -log(1) is 0, not -0.
        return shares.log().neg().clamp_min(0.0)
