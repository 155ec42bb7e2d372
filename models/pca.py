"""Principal components: rows off the plane that holds most of the variance are anomalous."""

from dataclasses import dataclass

import torch
from torch import Tensor

from models.detector import Batch, Contributions, Detector, Layout, expect
from models.inputs import Inputs
from models.refusal import Refusal
from models.space import Between, Space


@dataclass(frozen=True)
class PCAConfig:
    """Options of `pca`."""

    variance: float = 0.9  # share of the variance that the kept components explain, 0 to 1
    components: int = 64  # the most that are kept
    sample_rows: int = 100_000  # rows of the training days that it is fitted on

    def __post_init__(self) -> None:
        expect(0 < self.variance < 1, self, "variance", "more than 0, below 1")
        expect(self.components >= 1, self, "components", "1 or more")
        expect(self.sample_rows >= 2, self, "sample_rows", "2 or more")


class PCA(Detector):
    """Reconstruction error: the squared distance of a row to the plane of the kept components.

    Shares are the squared residuals of each feature, summed over the one-hot columns of a
    category: at least 0, and they add up to the score. `expected` is the point of the plane; of
    each category the largest column.
    """

    Config = PCAConfig
    learns = "sample"
    mean: Tensor
    axes: Tensor

    @classmethod
    def space(cls) -> Space:
        return {"variance": Between(0.3, 0.99)}

    def __init__(self, layout: Layout, config: PCAConfig) -> None:
        super().__init__(layout, config)
        self.inputs = Inputs(layout, embed=False)
        kept = min(config.components, self.inputs.width)
        self.register_buffer("mean", torch.zeros(self.inputs.width))
        # Rows beyond the components that were needed are 0, and change nothing.
        self.register_buffer("axes", torch.zeros(kept, self.inputs.width))

    def loss(self, batch: Batch) -> Tensor:
        """The score, which is also what PCA minimises."""
        return self.score(batch)

    @torch.no_grad()
    def fit(self, sample: Batch, seed: int) -> None:
        """Fit on the sample; `seed` is not needed, the decomposition is exact."""
        import sklearn.decomposition  # a second of start-up that only training needs

        columns = self.inputs(sample).cpu()
        if len(columns) < 2:
            raise Refusal(f"expected at least 2 rows to fit components, found {len(columns)}")
        # float64: a covariance of 100,000 rows in float32 loses the small components.
        fitted = sklearn.decomposition.PCA(self.config.variance, svd_solver="covariance_eigh")
        fitted.fit(columns.double().numpy())
        axes = torch.as_tensor(fitted.components_[: len(self.axes)])
        self.mean.copy_(torch.as_tensor(fitted.mean_))
        self.axes.zero_()
        self.axes[: len(axes)] = axes.to(self.axes)

    def score(self, batch: Batch) -> Tensor:
        columns: Tensor = self.inputs(batch)
        return (columns - self._plane(columns)).square().sum(1)

    def contributions(self, batch: Batch) -> Contributions:
        columns = self.inputs(batch)
        expected = self._plane(columns)
        squares = (columns - expected).square()
        maps = self.inputs.maps(squares, batch)
        return Contributions(self.inputs.by_feature(squares), self.inputs.row(expected), maps)

    def _plane(self, columns: Tensor) -> Tensor:
        """The nearest point of the plane."""
        return self.mean + ((columns - self.mean) @ self.axes.T) @ self.axes
