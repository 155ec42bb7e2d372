"""Probabilistic principal components: the distance from the mean, by components."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch, Contributions
from models.detectors.detector import Detector, expect
from models.detectors.search_space import Between, Space
from models.layers.dense_inputs import Inputs
from models.layout import Layout
from models.refusal import Refusal

# Least variance of a component, in squared scaled units: a column that was nearly constant in
# training must not outweigh all others.
_LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class PCAConfig:
    """Options of `pca`."""

    variance: float = 0.9  # share of the variance that the components must explain, 0 to 1
    components: int = 64  # largest number of components
    sample_rows: int = 100_000  # rows of the training days that it is fitted on

    def __post_init__(self) -> None:
        expect(0 < self.variance < 1, self, "variance", "more than 0, below 1")
        expect(self.components >= 1, self, "components", "1 or more")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class PCA(Detector):
    """Distance from the mean row, along principal components and away from them.

    Probabilistic principal components (Tipping & Bishop, JRSS B 1999). The score is the squared
    Mahalanobis distance under the covariance sum_k l_k v_k v_k' + s (I - sum_k v_k v_k'), with v_k
    and l_k the components and their variances, and s the mean variance of all other directions.
    The squared distance to the plane of the components alone does not see rows far out in that
    plane: its mean AUROC over 17 ADBench sets was 0.765 instead of 0.857.

    Shares are the squares of the symmetrically whitened row (ZCA; Kessy et al., The American
    Statistician 2018), in which each column stays as near as possible to its feature; at least 0.
    `expected` is the nearest point of the plane, for each category its largest column.
    """

    Config = PCAConfig
    learns = "sample"
    mean: Tensor
    axes: Tensor
    gains: Tensor
    rest: Tensor

    @classmethod
    def space(cls) -> Space:
        return {"variance": Between(0.3, 0.99)}

    def __init__(self, layout: Layout, config: PCAConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        most = min(config.components, self.inputs.width)
        self.register_buffer("mean", torch.zeros(self.inputs.width))
        # One row a component. Rows that are not needed stay 0 and change nothing.
        self.register_buffer("axes", torch.zeros(most, self.inputs.width))
        # `rest` is 1 / deviation away from the components, `rest + gains` along each of them.
        self.register_buffer("gains", torch.zeros(most))
        self.register_buffer("rest", torch.ones(()))

    def loss(self, batch: Batch) -> Tensor:
        """The score; there is no other loss."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit mean and components; `seed` is not used. Raises Refusal for fewer than 2 rows."""
        import sklearn.decomposition  # takes a second, which only training needs

        columns = self.inputs(sample).cpu()
        if len(columns) < 2:
            raise Refusal(f"expected at least 2 rows to fit components, found {len(columns)}")
        # float64: a covariance of 100,000 rows in float32 loses the small components.
        fitted = sklearn.decomposition.PCA(svd_solver="covariance_eigh")
        fitted.fit(columns.double().numpy())
        variances = torch.as_tensor(fitted.explained_variance_).clamp_min(0)
        used = self._count_components(variances)
        rest = variances[used:].sum() / max(1, columns.shape[1] - used)
        rest = rest.clamp_min(_LEAST_VARIANCE).rsqrt()
        self.rest.copy_(rest)
        self.gains.zero_()
        self.gains[:used] = variances[:used].clamp_min(_LEAST_VARIANCE).rsqrt() - rest
        self.mean.copy_(torch.as_tensor(fitted.mean_))
        self.axes.zero_()
        self.axes[:used] = torch.as_tensor(fitted.components_[:used])

    def score(self, batch: Batch) -> Tensor:
        return self._whiten(self.inputs(batch)).square().sum(1)

    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        squares = self._whiten(columns).square()
        maps = self.inputs.map_places(squares, batch)
        expected = self.inputs.decode(self._project(columns))
        return Contributions(self.inputs.sum_by_feature(squares), expected, maps)

    def _count_components(self, variances: Tensor) -> int:
        """The number of components that explain the required share of the variance."""
        total = variances.sum()
        if not total:
            return 0
        share = variances.cumsum(0) / total
        return min(len(self.axes), int((share < self.config.variance).sum()) + 1)

    def _whiten(self, columns: Tensor) -> Tensor:
        """The rows, symmetrically whitened: [rows, width]."""
        centred = columns - self.mean
        return centred * self.rest + (centred @ self.axes.T * self.gains) @ self.axes

    def _project(self, columns: Tensor) -> Tensor:
        """The nearest points of the plane of the components: [rows, width]."""
        return self.mean + ((columns - self.mean) @ self.axes.T) @ self.axes
