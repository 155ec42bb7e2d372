"""Severity: any detector's score on one scale from 0 to 100."""

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal
from models.scores.extreme_values import Pareto, fit_tail
from models.scores.sketch import NonFiniteScore, ScoreSketch
from models.scores.threshold import Calibration

# severity = 100 * (1 - p ** 0.2), where a share of p of the calibration rows scores as high:
# 1 in 10 is 37, 1 in 100 is 60, 1 in 1,000 is 75, 1 in 100,000 is 90.
EXPONENT = 0.2

# The tail starts at the 98th percentile, as in Siffer et al. (KDD 2017, section 4.3), but holds 50
# rows where there are 500: fewer do not fix a shape.
TAIL_FRACTION = 0.02
TAIL_ROWS = 50

# Points of the empirical part, evenly spaced in log p: 128 are about 1 severity apart.
KNOTS = 128


@dataclass(frozen=True)
class Severity:
    """Maps scores to severities, never lower for a higher score.

    Between `knots` (scores, ascending) the logarithm of p, `logs`, is interpolated linearly; above
    the last knot follows the `tail`: one generalised Pareto law, or two where the first has an end.
    """

    knots: tuple[float, ...]
    logs: tuple[float, ...]
    tail: tuple[Pareto, ...]

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
        """The severity of the calibration's scores, [rows] >= 1."""
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
        """Severity of each score, [rows] -> float32 [rows] in [0, 100].

        Infinite scores have severity 0 or 100. Raises `NonFiniteScore` for NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if np.isnan(values).any():
            raise NonFiniteScore(
                f"expected scores; {int(np.isnan(values).sum()):,} of {values.size:,} are NaN"
            )
        log_p = self._interpolate(values)
        joint = self.logs[-1]
        for law in self.tail:
            # Never above the share at the joint: rounding must not undo the order there.
            log_above = np.minimum(law.log_above(values), joint)
            log_p = np.where(values > law.start, log_above, log_p)
            joint = min(joint, float(law.log_above(np.array(self.tail[-1].start))))
        # 0.0 is added for the sign: the severity of p = 1 would be -0.0.
        return np.asarray(0.0 - 100.0 * np.expm1(EXPONENT * log_p), dtype=np.float32)

    def to_document(self) -> dict[str, Any]:
        """The severity as a JSON object, about 5 KB."""
        return {
            "knots": list(self.knots),
            "logs": list(self.logs),
            "tail": [asdict(law) for law in self.tail],
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The severity of `to_document`. Raises `Refusal` for anything else."""
        try:
            return cls(
                tuple(float(k) for k in document["knots"]),
                tuple(float(v) for v in document["logs"]),
                tuple(Pareto(**law) for law in document["tail"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, Refusal):
                raise
            raise Refusal(f"expected a severity; it cannot be read ({error!r})") from error

    def _interpolate(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logarithm of p from the knots; 0 (severity 0) below the first one."""
        knots, logs = np.array(self.knots), np.array(self.logs)
        log_p = np.interp(values, knots, logs)
        place = np.searchsorted(knots, values, side="right")
        # Held between its knots, as rounding may pass the next one by a hair.
        upper = np.concatenate(([0.0], logs))[place]
        lower = np.concatenate((logs, [logs[-1]]))[place]
        return np.where(place == 0, 0.0, np.clip(log_p, lower, upper))


def _tail(scores: ScoreSketch) -> tuple[Pareto, ...]:
    """The laws above the empirical part. Their shares count a score as above itself."""
    wanted = max(int(TAIL_FRACTION * scores.count), min(TAIL_ROWS, scores.count // 10), 1)
    law = fit_tail(scores, wanted)
    top = scores.maximum
    top_share = int(scores.count_at_least(top)) / scores.count
    if law is None:  # the largest score is a tie, or the only one
        spread = top - scores.quantile(0.5)
        # Scores that are all equal carry no unit but their size.
        return (Pareto(top, top_share, 0.0, spread or abs(top) or 1.0),)
    values = scores.values()
    first = float(values[np.searchsorted(values, law.start, side="right")])
    law = law.from_point(first, law.fraction)
    if law.shape >= 0:
        return (law,)
    # A tail with an end would give every score beyond it 100: from the largest score that we know,
    # it goes on as an exponential of the same slope, so that worse still ranks higher.
    at_top = float(np.exp(law.log_above(np.array(top))))
    beyond = law.from_point(top, at_top)
    return (law, Pareto(top, at_top, 0.0, beyond.scale))
