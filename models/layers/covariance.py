"""Covariances that can be merged, and their shrinkage."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Scatter:
    """Sums over rows about their mean, float64, with d = row - mean.

    Two of them merge exactly and in any order, so rows can be summed up a batch at a time.
    """

    count: int  # rows
    mean: Tensor  # [width]
    squares: Tensor  # [width, width]: the sum of d d'
    cubes: Tensor  # [width]: the sum of |d|^2 d; `combine` needs it for `fourths`
    fourths: Tensor  # []: the sum of |d|^4; the shrinkage needs it

    @classmethod
    def from_rows(cls, rows: Tensor) -> "Scatter":
        """The sums of rows [n, width], n >= 1."""
        rows = rows.double()
        mean = rows.mean(0)
        away = rows - mean
        lengths = away.square().sum(1)
        return cls(len(rows), mean, away.T @ away, lengths @ away, lengths.square().sum())

    def combine(self, other: "Scatter") -> "Scatter":
        """The sums of both (Chan, Golub & LeVeque 1979; higher moments: Pébay 2008)."""
        count = self.count + other.count
        mean = self.mean + (other.mean - self.mean) * (other.count / count)
        one, two = self._move_mean(mean), other._move_mean(mean)
        sums = zip(one, two, strict=True)
        return Scatter(count, mean, *(a + b for a, b in sums))

    @property
    def covariance(self) -> Tensor:
        """The covariance [width, width], divided by the number of rows."""
        return self.squares / self.count

    @property
    def shrinkage(self) -> float:
        """The weight of a multiple of the identity that minimises the expected squared error.

        0 to 1 (Ledoit & Wolf, J. Multivariate Analysis 2004, section 3.2).
        """
        covariance = self.covariance
        even = covariance.trace() / len(covariance)
        whole = covariance.square().sum()
        uneven = whole - len(covariance) * even.square()  # d^2, the distance to the identity
        error = (self.fourths / self.count - whole) / self.count  # b^2, the error of the sample
        if uneven <= 0:
            return 0.0
        return float((error / uneven).clamp(0, 1))

    def shrink(self, share: float | None = None) -> Tensor:
        """The covariance with this weight of the identity; by default `shrinkage`."""
        share = self.shrinkage if share is None else share
        covariance = (1 - share) * self.covariance
        even = self.covariance.trace() / len(covariance)
        covariance.diagonal().add_(share * even)
        return covariance

    def _move_mean(self, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`squares`, `cubes` and `fourths` about another point than the mean."""
        gap = self.mean - mean
        length, trace = gap.square().sum(), self.squares.trace()
        turned = self.squares @ gap
        squares = self.squares + self.count * torch.outer(gap, gap)
        cubes = self.cubes + 2 * turned + (trace + self.count * length) * gap
        fourths = self.fourths + 4 * (gap @ turned + gap @ self.cubes)
        fourths = fourths + length * (2 * trace + self.count * length)
        return squares, cubes, fourths
