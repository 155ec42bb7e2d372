"""How far the scores of a day are from those that the threshold was made from."""

import numpy as np

from models.scores.histogram import ScoreHistogram
from models.scores.sketch import ScoreSketch


def measure_drift(calibration: ScoreSketch, scores: ScoreHistogram) -> float | None:
    """The Kolmogorov-Smirnov distance of two sets of scores; None where one of them is empty.

    The largest difference of the shares at or below any score (Smirnov, "Table for Estimating the
    Goodness of Fit of Empirical Distributions", 1948): 0 to 1, whatever the scale of the scores,
    with no bins to choose. It is looked for at the edges of the histogram's bins, where the
    day's shares are exact; those of the calibration are the sketch's estimates.
    """
    if not calibration.count or not scores.count:
        return None
    edges, below = scores.accumulate()
    known = 1.0 - calibration.count_at_least(edges) / calibration.count
    return float(np.abs(below / scores.count - known).max())
