"""Peaks over threshold: the distribution of the scores in the upper tail.

Above a high cut, the excesses of most distributions follow a generalised Pareto law (Pickands 1975;
Balkema and de Haan 1974). A few thousand large scores therefore tell how likely a much larger score
is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.refusal import Refusal
from models.scores.sketch import TAIL, ScoreSketch

# Fewer excesses, or fewer distinct ones, do not determine a shape: the law is exponential then.
LEAST_EXCESSES = 10


@dataclass(frozen=True)
class Pareto:
    """The generalised Pareto law of the scores above `start`.

    P(score > x) = fraction * (1 + shape * (x - start) / scale) ** (-1 / shape) for x >= start.
    The tail is heavy if the shape is above 0, exponential if it is 0, and has an end if it is
    below 0. Raises Refusal for values that are not finite or out of range.

    >>> law = Pareto(start=2.0, fraction=0.02, shape=0.0, scale=1.0)
    >>> round(law.quantile(0.001), 3)  # a share of 0.001 lies above this score
    4.996
    """

    start: float
    fraction: float  # share of all scores above `start`, above 0 and at most 1
    shape: float
    scale: float  # above 0, in the unit of the scores

    def __post_init__(self) -> None:
        values = (self.start, self.fraction, self.shape, self.scale)
        if not np.isfinite(values).all() or self.scale <= 0 or not 0 < self.fraction <= 1:
            raise Refusal(
                "expected a finite tail with a scale above 0 and a fraction in (0, 1]; "
                f"found {self}"
            )

    def log_above(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The logarithm of the share of scores above each of `scores`; -inf beyond a tail's end."""
        with np.errstate(over="ignore", divide="ignore"):
            excess = np.maximum(scores - self.start, 0.0) / self.scale
            if abs(self.shape) < 1e-9:  # the limit; the general formula would lose all digits
                return np.asarray(np.log(self.fraction) - excess)
            growth = np.log1p(np.maximum(self.shape * excess, -1.0))
            return np.asarray(np.log(self.fraction) - growth / self.shape)

    def quantile(self, fraction: float) -> float:
        """The score that a share of `fraction` of all scores lies above.

        `fraction` is at most `self.fraction`. Equation 1 of Siffer et al., "Anomaly Detection in
        Streams with Extreme Value Theory", KDD 2017.
        """
        log_ratio = np.log(self.fraction / fraction)
        if abs(self.shape) < 1e-9:
            return float(self.start + self.scale * log_ratio)
        with np.errstate(over="ignore"):
            growth = np.expm1(self.shape * log_ratio) / self.shape
        return float(self.start + self.scale * growth)

    def from_point(self, start: float, fraction: float) -> "Pareto":
        """The same law from a higher `start`, which a share of `fraction` exceeds.

        The excesses over the new start also follow a generalised Pareto law (threshold stability).
        """
        return Pareto(start, fraction, self.shape, self.scale + self.shape * (start - self.start))


def fit_tail(scores: ScoreSketch, excesses: int) -> Pareto | None:
    """Fit the law of about the `excesses` largest scores.

    Returns None if the largest score is a tie. If few excesses are distinct, the law is exponential
    with their mean. At most the 4,095 largest scores are used, because the sketch holds only those
    exactly.
    """
    tail = scores.tail.astype(np.float64)
    start = tail[min(excesses, TAIL - 1, tail.size - 1)]
    above = tail[tail > start] - start
    if above.size == 0:
        return None
    fraction = above.size / scores.count
    if above.size < LEAST_EXCESSES or np.unique(above).size < LEAST_EXCESSES:
        return Pareto(float(start), fraction, 0.0, float(above.mean()))
    shape, scale = _zhang_stephens(above[::-1])
    return Pareto(float(start), fraction, shape, scale)


def _zhang_stephens(ascending: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and scale of the generalised Pareto law of positive excesses, in ascending order.

    Zhang and Stephens, "A New and Efficient Estimation Method for the Generalized Pareto
    Distribution", Technometrics 51(3), 2009: the mean of the parameter over a grid, weighted by its
    profile likelihood. It needs no optimiser that can fail, and it is accurate where
    probability-weighted moments are biased: for shapes above 0.5, which reconstruction errors have.
    The shape is shrunk towards 0.5 with the weight of ten excesses, as in Vehtari et al., "Pareto
    Smoothed Importance Sampling", appendix C.
    """
    count = ascending.size
    unit = ascending[-1]  # the estimate then does not depend on the unit and cannot overflow
    excess = ascending / unit
    points = 30 + int(count**0.5)
    quartile = excess[int(count / 4 + 0.5) - 1]
    grid = 1.0 + (1.0 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3.0 * quartile)
    grid = grid[grid != 0]
    shapes = np.log1p(-grid[:, None] * excess).mean(axis=1)
    likelihood = count * (np.log(-grid / shapes) - shapes - 1.0)
    weights = np.exp(likelihood - likelihood.max())
    theta = float((grid * weights).sum() / weights.sum())
    if theta == 0:
        theta = 1e-12
    shape = float(np.log1p(-theta * excess).mean())
    scale = -shape / theta * unit
    return (count * shape + 10 * 0.5) / (count + 10), float(scale)
