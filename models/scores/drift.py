"""Drift: how far the scores of a day are from the scores of the calibration."""

import numpy as np

from models.scores.histogram import ScoreHistogram
from models.scores.sketch import ScoreSketch


def measure_drift(calibration: ScoreSketch, scores: ScoreHistogram) -> float | None:
    """The Kolmogorov-Smirnov distance of the day's scores from the calibration's, 0 to 1.

    Returns None if either has no scores. The distance is the largest difference, over all scores,
    between the two shares of scores at or below it (Smirnov, "Table for Estimating the Goodness of
    Fit of Empirical Distributions", 1948), so it does not depend on the unit of the scores. It is
    evaluated at the edges of the histogram's bins: there the day's shares are exact, and the
    calibration's are the sketch's estimates.
    """
    if not calibration.count or not scores.count:
        return None
    edges, below = scores.accumulate()
    known = 1.0 - calibration.count_at_least(edges) / calibration.count
    return float(np.abs(below / scores.count - known).max())
