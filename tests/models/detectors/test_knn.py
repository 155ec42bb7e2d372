"""Nearest neighbours: the same distances as scikit-learn, and the effect of locality."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.knn import KNN
from models.layout import Layout, NumericInput

LAYOUT = Layout((NumericInput("x", "real"), NumericInput("y", "real")), ())


def rows(values: Any) -> Batch:
    numbers = torch.tensor(np.asarray(values), dtype=torch.float32)
    return Batch(numbers, torch.zeros(len(numbers), 0, dtype=torch.int64))


def fitted(values: Any, **options: Any) -> KNN:
    detector = CATALOG.build("knn", LAYOUT, {"sample_rows": 1000, **options})
    assert isinstance(detector, KNN)
    detector.fit(rows(values), seed=0)
    return detector


def clouds() -> np.ndarray[Any, Any]:
    """Two clouds of 200 points: a narrow one around (-5, 0) and a wide one around (5, 0)."""
    rng = np.random.default_rng(0)
    narrow = rng.normal((-5, 0), 0.1, (200, 2))
    return np.concatenate([narrow, rng.normal((5, 0), 1.0, (200, 2))])


def test_without_locality_the_score_is_the_mean_distance() -> None:
    learned, scored = clouds(), np.random.default_rng(1).normal(0, 5, (300, 2))
    distances = NearestNeighbors(n_neighbors=4).fit(learned).kneighbors(scored)[0]
    found = fitted(learned, neighbours=4, locality=0.0).score(rows(scored))
    assert found.numpy() == pytest.approx(distances.mean(1), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("size", [999, 1000])
def test_a_large_sample_gives_the_same_neighbours(size: int) -> None:
    learned, scored = np.random.default_rng(0).normal(size=(2, size, 2))
    distances = NearestNeighbors(n_neighbors=4).fit(learned).kneighbors(scored)[0]
    found = fitted(learned, neighbours=4, locality=0.0).score(rows(scored))
    assert found.numpy() == pytest.approx(distances.mean(1), rel=1e-3, abs=1e-4)


def test_the_same_gap_counts_for_more_beside_a_narrow_cloud() -> None:
    gaps = rows([[-5.0, 3.0], [5.0, 6.0]])
    plain = fitted(clouds(), locality=0.0).score(gaps)
    local = fitted(clouds(), locality=0.5).score(gaps)
    assert local[0] / local[1] > 1.5 * plain[0] / plain[1]


def test_at_locality_one_the_width_of_the_surroundings_cancels() -> None:
    """A cloud and a gap of twice the size have the same outlier factor."""
    rng = np.random.default_rng(0)
    cloud, gap = rng.normal(0, 1, (200, 2)), np.array([[4.0, 0.0]])
    learned = np.concatenate([cloud, 2 * cloud + 100])
    found = fitted(learned, locality=1.0).score(rows(np.concatenate([gap, 2 * gap + 100])))
    assert found[0] == pytest.approx(float(found[1]), rel=1e-3)


def test_rows_that_repeat_do_not_make_their_surroundings_infinitely_narrow() -> None:
    learned = np.concatenate([np.zeros((300, 2)), np.random.default_rng(0).normal(5, 1, (300, 2))])
    scores = fitted(learned).score(rows([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [20.0, 20.0]]))
    assert torch.isfinite(scores).all()
    assert scores[0] == 0
    assert scores[3] > scores[1]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_rows_than_neighbours_are_enough(count: int) -> None:
    learned = np.random.default_rng(0).normal(size=(count, 2))
    scores = fitted(learned, neighbours=10).score(rows([[0.0, 0.0], [30.0, 30.0]]))
    assert torch.isfinite(scores).all()
    assert scores[1] > scores[0]
