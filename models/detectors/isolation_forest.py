"""Isolation forest: fitted by scikit-learn, scored by torch."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.search_space import OneOf, Space
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal


@dataclass(frozen=True)
class IsolationForestConfig:
    """Options of `isolation_forest`."""

    trees: int = 100  # trees of the forest; the paper's value
    rows_per_tree: int = 256  # rows that each tree is grown on; the paper's value
    sample_rows: int = 100_000  # rows of the training days that the trees draw from

    def __post_init__(self) -> None:
        expect(self.trees >= 1, self, "trees", "1 or more")
        expect(self.rows_per_tree >= 2, self, "rows_per_tree", "2 or more")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class IsolationForest(Detector):
    """Cuts the rows at random; an anomaly is separated from the others by few cuts.

    Liu, Ting & Zhou, ICDM 2008. The score is 1 - E[h] / c(n), with E[h] the mean path length over
    the trees and c(n) the mean path length of a tree of n rows. It equals 1 + log2(s) for the
    paper's score s (equation 2), which is -score_samples of scikit-learn: 0 for a row of average
    depth, near 1 for an outlier.

    Each cut on a row's path changes the expected path length; the change is the share of the
    feature that was cut (Saabas 2014, "Interpreting random forests"). A share below 0 makes the row
    look more normal. `base_score()` is the mean score of the training rows. `expected` is the
    median of the sample, for binaries and categories the most frequent value.
    """

    Config = IsolationForestConfig
    eager = "torch finds the leaves of its trees in two thirds of the time"
    learns = "sample"
    cut: Tensor
    value: Tensor
    left: Tensor
    right: Tensor
    length: Tensor
    unit: Tensor
    usual: Tensor

    @classmethod
    def space(cls) -> Space:
        return {"trees": OneOf((100, 200, 400)), "rows_per_tree": OneOf((64, 128, 256, 512, 1024))}

    def __init__(self, layout: Layout, config: IsolationForestConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        # A tree of n leaves has 2n - 1 nodes; smaller trees are padded.
        shape = (config.trees, 2 * config.rows_per_tree - 1)
        self.register_buffer("cut", torch.zeros(shape, dtype=torch.int32))  # column; 0 at a leaf
        # float64, in which scikit-learn compares: the same rows go left.
        self.register_buffer("value", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("left", torch.zeros(shape, dtype=torch.int32))  # a leaf: itself
        self.register_buffer("right", torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("length", torch.zeros(shape, dtype=torch.float64))  # expected path
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))  # c(n)
        self.register_buffer("usual", torch.zeros(self.inputs.width))

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Grow the trees. Raises Refusal for fewer than 2 rows."""
        import sklearn.ensemble  # takes a second, which only training needs

        columns = self.inputs(sample).cpu()
        if len(columns) < 2:
            raise Refusal(f"expected at least 2 rows to grow a forest, found {len(columns)}")
        rows = min(self.config.rows_per_tree, len(columns))
        forest = sklearn.ensemble.IsolationForest(
            n_estimators=self.config.trees, max_samples=rows, random_state=seed
        ).fit(columns.numpy())
        for t, estimator in enumerate(forest.estimators_):
            self._copy_tree(t, estimator.tree_)
        self.unit.fill_(_mean_length(np.array([rows]))[0])
        self.usual.copy_(columns.median(0).values)
        n = self.inputs.numbers
        self.usual[n:] = columns[:, n:].mean(0).to(self.usual.device)  # for the most frequent code

    def _copy_tree(self, t: int, tree: Any) -> None:
        """Copy a tree of scikit-learn, which numbers parents before their children."""
        leaf = tree.children_left < 0
        here = np.arange(tree.node_count)
        left = np.where(leaf, here, tree.children_left)
        right = np.where(leaf, here, tree.children_right)
        rows = tree.n_node_samples.astype(np.float64)
        length = np.zeros(tree.node_count)
        depth = np.zeros(tree.node_count)
        for node in here[~leaf]:
            depth[[left[node], right[node]]] = depth[node] + 1
        length[leaf] = depth[leaf] + _mean_length(tree.n_node_samples[leaf])
        for node in here[~leaf][::-1]:
            a, b = left[node], right[node]
            length[node] = (rows[a] * length[a] + rows[b] * length[b]) / rows[node]
        arrays = {
            "cut": np.where(leaf, 0, tree.feature),
            "value": np.where(leaf, 0.0, tree.threshold),
            "left": left,
            "right": right,
            "length": length,
        }
        for name, array in arrays.items():
            buffer = getattr(self, name)[t]
            buffer.zero_()
            buffer[: tree.node_count] = torch.as_tensor(array).to(buffer)

    def score(self, batch: Batch) -> Tensor:
        columns = self.inputs(batch)
        node = self._start_at_roots(columns)
        for _ in range(self._depth):
            node = self._step(columns, node)[0]
        return self._score(self.length.view(-1)[node].mean(1))

    def base_score(self) -> float:
        return float(self._score(self.length[:, 0].mean()))

    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        node = self._start_at_roots(columns)
        length = self.length.view(-1)
        # In float64, so that the many small credits add up to the score.
        credit = torch.zeros(columns.shape, dtype=torch.float64, device=columns.device)
        for _ in range(self._depth):
            after, column = self._step(columns, node)
            credit.scatter_add_(1, column, length[node] - length[after])
            node = after
        shares = (credit / (self.config.trees * self.unit)).float()
        usual = self.inputs.decode(self.usual.expand(len(columns), -1))
        maps = self.inputs.map_places(shares, batch)
        return Contributions(self.inputs.sum_by_feature(shares), usual, maps)

    @property
    def _depth(self) -> int:
        """The depth to which scikit-learn limits a tree."""
        return math.ceil(math.log2(self.config.rows_per_tree))

    def _start_at_roots(self, columns: Tensor) -> Tensor:
        """The root of each tree for each row, as positions in the flat buffers."""
        nodes = self.length.shape[1]
        first = torch.arange(self.config.trees, device=columns.device) * nodes
        return first.expand(len(columns), -1)

    def _step(self, columns: Tensor, node: Tensor) -> tuple[Tensor, Tensor]:
        """The next node in each tree, and the column that was compared. A leaf leads to itself."""
        column = self.cut.view(-1)[node].long()
        low = columns.gather(1, column) <= self.value.view(-1)[node]
        child = torch.where(low, self.left.view(-1)[node], self.right.view(-1)[node])
        return self._start_at_roots(columns) + child, column

    def _score(self, length: Tensor) -> Tensor:
        return (1 - length / self.unit).float()


def _mean_length(rows: np.ndarray) -> np.ndarray:
    """c(n), the mean path length of an unsuccessful search among n rows (paper, equation 1)."""
    n = rows.astype(np.float64)
    large = 2 * (np.log(np.maximum(n, 2) - 1) + np.euler_gamma) - 2 * (n - 1) / np.maximum(n, 1)
    return np.where(n > 2, large, np.where(n == 2, 1.0, 0.0))
