"""The loop on one device: what is kept, when it stops, and that it is the same twice."""

import copy
import dataclasses
from typing import Any

import pytest
import torch

from models.batch import Batch, join
from models.contract.layouts import TABLE, far_table_rows, table_rows
from models.detectors.autoencoder import Autoencoder
from models.detectors.catalog import CATALOG
from models.training.loop import learn, measure_held_back_loss, score_rows
from models.training.options import (
    NonFiniteLoss,
    TrainingOptions,
    count_kept,
    drop_highest,
    plan_batches,
)
from models.training.progress import EpochResult
from tests.models.pretend_device import DEVICE, pretending

OPTIONS = TrainingOptions(epochs=4, batch_rows=64, learning_rate=3e-3)


def built(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return CATALOG.build(name, TABLE, options)


def test_it_stops_after_the_patience_and_holds_and_calibrates_the_weights_of_the_best_epoch() -> (
    None
):
    detector = built("autoencoder", widths=[16])
    assert isinstance(detector, Autoencoder)
    seen: list[EpochResult] = []
    held_back = far_table_rows(50, seed=2)
    # So high a rate that the loss jumps.
    options = dataclasses.replace(OPTIONS, epochs=50, patience=2, learning_rate=0.3)
    learned = learn(detector, table_rows(400, seed=1), held_back, options, seen.append)
    assert len(learned.losses) == learned.best_epoch + 2
    assert [result.validation_loss for result in seen] == list(learned.losses)
    assert learned.best_epoch == min(seen, key=lambda result: result.validation_loss).epoch
    assert measure_held_back_loss(detector, [held_back]) == pytest.approx(min(learned.losses))
    assert not torch.equal(detector.variance, torch.ones_like(detector.variance))


@pytest.mark.parametrize("name", ["classifier", "isolation_forest"])
def test_the_same_seed_gives_the_same_scores_and_another_does_not(name: str) -> None:
    rows = join([table_rows(400, seed=1), far_table_rows(40, seed=2)])
    found = []
    for seed in (0, 0, 1):
        detector = built(name)
        learn(detector, rows, rows, dataclasses.replace(OPTIONS, epochs=1, seed=seed))
        found.append(score_rows(detector, rows))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_loss_that_is_not_finite_is_refused() -> None:
    rows = table_rows(200, seed=1)
    broken = Batch(rows.numeric * torch.nan, rows.codes)
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        learn(built("autoencoder", widths=[8]), broken, broken, OPTIONS)


def test_a_loss_that_is_not_finite_is_named_on_a_device_too_though_it_is_read_later() -> None:
    rows = table_rows(2000, seed=1)
    rows.numeric[700, 2] = torch.nan
    detector = built("autoencoder", widths=[8])
    with pretending(), pytest.raises(NonFiniteLoss, match=r"epoch 1, batch .*caused by packets"):
        learn(detector.to(DEVICE), rows.to(DEVICE), rows.to(DEVICE), OPTIONS)


@pytest.mark.parametrize("name", ["autoencoder", "devnet"])
def test_no_step_waits_for_the_device_and_all_learn_as_on_the_cpu(name: str) -> None:
    waits, losses = [], []
    for rows in (640, 1280):
        given = join([table_rows(rows - 32, seed=1), far_table_rows(32, seed=2)])
        here = built(name, widths=[8]) if name == "autoencoder" else built(name, dropout=0.0)
        there = copy.deepcopy(here)
        options = dataclasses.replace(OPTIONS, epochs=1, learning_rate=1e-4)
        with pretending() as device:
            moved = learn(there.to(DEVICE), given.to(DEVICE), given.to(DEVICE), options)
        waits.append(device.waits)
        losses.append((moved.losses, learn(here, given, given, options).losses))
    assert waits[0] == waits[1]  # twice as many steps
    for found, expected in losses:
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.thorough
def test_a_batch_in_parts_gives_the_same_weights_up_to_rounding() -> None:
    rows = table_rows(400, seed=1)
    states = []
    for accumulate in (1, 3):
        detector = built("autoencoder", widths=[16])
        options = dataclasses.replace(OPTIONS, epochs=2, accumulate=accumulate)
        learn(detector, rows, rows, options)
        states.append(detector.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-3, atol=1e-4)


def test_the_rows_of_highest_loss_are_left_out() -> None:
    losses = torch.tensor([3.0, 1.0, 9.0, 2.0, 8.0], requires_grad=True)
    drop_highest(losses, 0.4).sum().backward()  # type: ignore[no-untyped-call]
    assert losses.grad is not None
    assert losses.grad.tolist() == [1, 1, 0, 1, 0]
    assert count_kept(1, 0.5) == 1


def scattered_rows(rows: int, seed: int) -> Batch:
    """Rows whose reals have nothing to do with each other, and are a little large."""
    near = table_rows(rows, seed)
    numeric = near.numeric.clone()
    generator = torch.Generator().manual_seed(seed)
    numeric[:, :3] = 2.5 * torch.randn(rows, 3, generator=generator)
    return near._replace(numeric=numeric)


@pytest.mark.thorough
def test_trimmed_training_knows_anomalies_among_its_rows_better() -> None:
    rows = join([table_rows(600, seed=1), scattered_rows(60, seed=2)])
    auroc = []
    for trim in (0.0, 0.2):
        detector = built("autoencoder", widths=[32])
        learn(detector, rows, rows, dataclasses.replace(OPTIONS, epochs=8, trim=trim))
        normal, odd = (
            score_rows(detector, table_rows(300, 3)),
            score_rows(detector, scattered_rows(300, 4)),
        )
        auroc.append(float((odd[:, None] > normal).float().mean()))
    assert auroc[1] > auroc[0] + 0.01


def test_small_data_takes_small_batches_and_several_passes() -> None:
    assert plan_batches(1_000_000, 1024) == (1024, 1)
    assert plan_batches(50_000, 1024) == (500, 1)
    assert plan_batches(320, 1024) == (32, 10)
