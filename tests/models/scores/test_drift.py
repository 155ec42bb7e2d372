"""Drift is close to the exact Kolmogorov-Smirnov distance of the scores."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from models.scores.drift import measure_drift
from models.scores.histogram import ScoreHistogram
from models.scores.sketch import ScoreSketch

ROWS = 20_000


def drift(calibration: np.ndarray, day: np.ndarray) -> float | None:
    sketch, histogram = ScoreSketch(), ScoreHistogram()
    if len(calibration):
        sketch.update(calibration.astype(np.float32))
    histogram.update(day.astype(np.float32))
    return measure_drift(sketch, histogram)


@pytest.mark.parametrize("factor", [1.0, 1.05, 1.5, 4.0])
@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_drift_is_the_kolmogorov_smirnov_distance(factor: float, shift: float) -> None:
    chance = np.random.default_rng(3)
    before = chance.lognormal(size=ROWS) + shift
    after = factor * chance.lognormal(size=ROWS // 4) + shift
    found = drift(before, after)
    # The histogram holds a score to within 1/32 of its size, the sketch a rank to about 1%.
    assert found == pytest.approx(ks_2samp(before, after).statistic, abs=0.02)


def test_drift_is_0_for_the_same_scores_and_1_for_separate_ones() -> None:
    scores = np.random.default_rng(3).normal(size=4_000)
    assert drift(scores, scores) == pytest.approx(0.0, abs=0.02)
    assert drift(scores, scores + 100) == 1.0
    assert drift(scores, scores - 100) == 1.0


def test_constant_scores_are_compared() -> None:
    constant = np.full(1_000, 2.5)
    assert drift(constant, constant) == pytest.approx(0.0)
    assert drift(constant, constant + 1.0) == 1.0


def test_drift_without_scores_is_none() -> None:
    some = np.ones(10)
    assert drift(np.empty(0), some) is None
    assert drift(some, np.empty(0)) is None
