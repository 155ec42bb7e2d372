"""A step uses no more threads than it has work for."""

import pytest
import torch

from models.contract.layouts import TABLE, table_rows
from models.detectors.catalog import CATALOG
from models.training.threads import count_work, limit_threads


@pytest.mark.parametrize(
    ("widths", "threads"), [([64, 32], 1), ([1024, 512], 8), ([2048, 2048], 8)]
)
def test_a_small_network_is_trained_by_one_thread_and_a_wide_one_by_all(
    widths: list[int], threads: int
) -> None:
    detector = CATALOG.build("autoencoder", TABLE, {"widths": widths})
    before, random = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(8)
    try:
        with limit_threads(detector, table_rows(50, 1), rows=2048):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_the_work_of_a_step_is_that_of_its_products_and_grows_with_its_rows() -> None:
    detector = CATALOG.build("autoencoder", TABLE, {"widths": [16], "latent": 4})
    rows = table_rows(40, 1)
    weights = sum(p.numel() for p in detector.parameters() if p.ndim == 2) - 40 * 6  # embedding
    # Forward, and backward to inputs and to weights.
    assert count_work(detector, rows, 1000) == pytest.approx(6 * 1000 * weights, rel=0.2)
    assert count_work(detector, rows, 2000) == 2 * count_work(detector, rows, 1000)
