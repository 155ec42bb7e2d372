"""Severity: the scores of any detector on one scale from 0 to 100."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal
from models.scores.extreme_values import Pareto, fit_tail
from models.scores.sketch import NonFiniteScore, ScoreSketch
from models.scores.threshold import Calibration

# severity = 100 * (1 - p ** 0.2), where p is the share of calibration rows with as high a score:
# 1 in 10 is 37, 1 in 100 is 60, 1 in 1,000 is 75, 1 in 100,000 is 90.
EXPONENT = 0.2

# The tail starts at the 98th percentile, as in Siffer et al. (KDD 2017, section 4.3). From 500 rows
# on it has at least 50 rows, because fewer do not determine a shape.
TAIL_FRACTION = 0.02
TAIL_ROWS = 50

# Points of the empirical part, evenly spaced in log p: 128 points are about 1 severity apart.
KNOTS = 128


@dataclass(frozen=True)
class Severity:
    """Maps scores to severities. A higher score never has a lower severity.

    Between the `knots`, log p is interpolated linearly; above the last knot, p follows the `tail`.

    >>> from models.scores.sketch import ScoreSketch
    >>> sketch = ScoreSketch()
    >>> sketch.update(np.random.default_rng(0).exponential(size=10_000))
    >>> severity = Severity.from_calibration(Calibration(sketch))
    >>> severity([-1.0, 0.7, 4.6, 20.0]).round().tolist()
    [0.0, 13.0, 60.0, 97.0]
    """

    knots: tuple[float, ...]  # scores, ascending
    logs: tuple[float, ...]  # log p at each knot, falling
    tail: tuple[Pareto, ...]  # one law, or two if the first one has an end

    def __post_init__(self) -> None:
        knots, logs = np.array(self.knots), np.array(self.logs)
        starts = [law.start for law in self.tail]
        if (
            not len(knots) == len(logs) > 0
            or not (np.isfinite(knots).all() and np.isfinite(logs).all())
            or (np.diff(knots) <= 0).any()
            or (np.diff(logs) > 0).any()
            or logs[0] > 0
            or len(starts) not in (1, 2)
            or starts[0] != knots[-1]
            or starts != sorted(starts)
        ):
            raise Refusal(
                "expected a severity of rising scores and falling shares; train the detector again"
            )

    @classmethod
    def from_calibration(cls, calibration: Calibration) -> Self:
        """Fit the mapping to the scores of a calibration."""
        scores = calibration.scores
        tail = _tail(scores)
        rows = np.geomspace(scores.count, tail[0].fraction * scores.count, KNOTS)
        knots = {scores.minimum, *(scores.cut(count) for count in rows)}
        ordered = np.array(sorted(k for k in knots if k < tail[0].start))
        logs = np.log(scores.count_at_least(ordered) / scores.count)
        return cls(
            (*ordered.tolist(), tail[0].start),
            (*logs.tolist(), float(np.log(tail[0].fraction))),
            tail,
        )

    def __call__(self, scores: ArrayLike) -> NDArray[np.float32]:
        """The severity of each score: [rows] to float32 [rows], 0 to 100.

        Infinite scores have severity 0 or 100. Raises NonFiniteScore for NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if np.isnan(values).any():
            raise NonFiniteScore(
                f"expected scores; {int(np.isnan(values).sum()):,} of {values.size:,} are NaN"
            )
        log_p = self._interpolate(values)
        joint = self.logs[-1]
        for law in self.tail:
            # At most the share at the joint: rounding must not change the order there.
            log_above = np.minimum(law.log_above(values), joint)
            log_p = np.where(values > law.start, log_above, log_p)
            joint = min(joint, float(law.log_above(np.array(self.tail[-1].start))))
        # `0.0 -` instead of a minus sign: the severity of p = 1 would be -0.0.
        return np.asarray(0.0 - 100.0 * np.expm1(EXPONENT * log_p), dtype=np.float32)

    def _interpolate(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """log p from the knots; 0, which is severity 0, below the first knot."""
        knots, logs = np.array(self.knots), np.array(self.logs)
        log_p = np.interp(values, knots, logs)
        place = np.searchsorted(knots, values, side="right")
        # Rounding may carry a value slightly past the next knot.
        upper = np.concatenate(([0.0], logs))[place]
        lower = np.concatenate((logs, [logs[-1]]))[place]
        return np.where(place == 0, 0.0, np.clip(log_p, lower, upper))


def _tail(scores: ScoreSketch) -> tuple[Pareto, ...]:
    """The laws above the empirical part. In their shares, a score counts as above itself."""
    wanted = max(int(TAIL_FRACTION * scores.count), min(TAIL_ROWS, scores.count // 10), 1)
    law = fit_tail(scores, wanted)
    top = scores.maximum
    top_share = int(scores.count_at_least(top)) / scores.count
    if law is None:  # the largest score is a tie, or the only one
        spread = top - scores.quantile(0.5)
        # If all scores are equal, their size is the only unit.
        return (Pareto(top, top_share, 0.0, spread or abs(top) or 1.0),)
    values = scores.values()
    first = float(values[np.searchsorted(values, law.start, side="right")])
    law = law.from_point(first, law.fraction)
    if law.shape >= 0:
        return (law,)
    # Beyond the end of a tail every score would have severity 100. From the largest known score on,
    # an exponential of the same slope ranks still higher scores.
    at_top = float(np.exp(law.log_above(np.array(top))))
    beyond = law.from_point(top, at_top)
    return (law, Pareto(top, at_top, 0.0, beyond.scale))
