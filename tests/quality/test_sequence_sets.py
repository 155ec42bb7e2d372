"""How public series are cut into rows."""

import numpy as np
import pytest
import torch

from tests.public_sets import DATA
from tests.quality.sequence_sets import SERIES_SETS, scaled, windows

FOUND = DATA.is_dir()


def test_a_window_ends_at_its_row_and_is_padded_on_the_left() -> None:
    values = np.arange(1, 6, dtype=np.float32)[:, None]
    found = windows(values, steps=3)
    assert found.shape == (5, 2, 3)
    assert found[:, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert found[0, 1].tolist() == [0, 0, 1]
    assert torch.equal(windows(values, 3, np.array([4, 1])), found[[4, 1]])


def test_a_channel_is_scaled_by_its_training_part_and_a_constant_is_left() -> None:
    train = np.array([[0, 7], [2, 7], [4, 7]], np.float32)
    learned, asked = scaled(train, np.array([[2, 8]], np.float32))
    np.testing.assert_allclose(learned.mean(0), 0, atol=1e-6)
    assert learned[:, 0].std() == pytest.approx(1)
    np.testing.assert_allclose(asked, [[0, 1]])


@pytest.mark.skipif(not FOUND, reason="the data sets are not beside the checkout: ../shared/data")
@pytest.mark.parametrize("name", ["smd", "nab"])
def test_a_set_has_no_anomaly_labels_in_training_and_both_kinds_in_the_test(name: str) -> None:
    task = next(t for t in SERIES_SETS[name](8, 0) if t.anomalous.any())
    task.train.check(task.layout)
    task.held_back.check(task.layout)
    assert task.train.label is None
    assert task.held_back.label is None
    assert len(task.test.numeric) == len(task.anomalous) == len(task.counted)
    assert 0 < task.anomalous[task.counted].mean() < 0.5
