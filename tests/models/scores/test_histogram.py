"""Counts of scores: close to the exact ones, and the same in any order and grouping."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.scores.histogram import ScoreHistogram

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def histogram(scores: np.ndarray) -> ScoreHistogram:
    counted = ScoreHistogram()
    counted.update(scores)
    return counted


def test_counts_are_close_to_the_exact_counts() -> None:
    rng = np.random.default_rng(0)
    scores = rng.lognormal(0, 2, 100_000).astype(np.float32)
    scores[::3] *= -1
    edges = np.array([scores.min(), -5, -1, -0.1, 0, 0.1, 1, 5, 20, scores.max()])
    exact = np.histogram(scores, edges)[0]
    assert np.abs(histogram(scores).count_between(edges) - exact).max() < 0.005 * len(scores)


@given(st.lists(finite, min_size=1, max_size=60), st.integers(0, 60))
def test_merged_histograms_equal_the_histogram_of_all_scores(scores: list[float], cut: int) -> None:
    values = np.array(scores, np.float32)
    merged = histogram(values[cut:])
    merged.merge(histogram(values[:cut]))
    assert merged.to_document() == histogram(values).to_document()
    assert (merged.minimum, merged.maximum) == (values.min(), values.max())
    assert merged.count == len(values)


@given(st.lists(finite, min_size=1, max_size=60))
def test_edges_that_enclose_all_scores_count_all_of_them(scores: list[float]) -> None:
    counted = histogram(np.array(scores, np.float32))
    low, high = counted.minimum, counted.maximum
    middle = low / 2 + high / 2
    assert counted.count_between([low, middle, high]).sum() == (len(scores) if low < high else 0)
    assert (counted.count_between(np.linspace(low - 1, high + 1, 9)) >= 0).all()


def test_a_histogram_comes_back_from_its_json() -> None:
    counted = histogram(np.array([-1, 0, 2, 2, 1e30], np.float32))
    again = ScoreHistogram.from_document(json.loads(json.dumps(counted.to_document())))
    assert again.to_document() == counted.to_document()


def test_an_empty_histogram_can_be_merged() -> None:
    counted = histogram(np.array([3], np.float32))
    counted.merge(ScoreHistogram.from_document(ScoreHistogram().to_document()))
    assert (counted.count, counted.minimum, counted.maximum) == (1, 3, 3)


@pytest.mark.parametrize("score", [0.0, -0.0, 3e38, -3e38, 1e-45])
def test_every_finite_score_has_a_bin(score: float) -> None:
    counted = histogram(np.full(5, score, np.float32))
    document = counted.to_document()
    assert document["counts"] == [5]
