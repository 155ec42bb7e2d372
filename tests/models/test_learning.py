"""The loop on one device: what is kept, when it stops, and that it is the same twice."""

import dataclasses
from typing import Any

import pytest
import torch

from models import catalog
from models.autoencoder import Autoencoder
from models.detector import Batch, joined
from models.learning import (
    NonFiniteLoss,
    TrainingOptions,
    batches_of,
    held_back_loss,
    learn,
    scored,
)
from tests.models.layouts import TABLE, far_table_rows, table_rows

OPTIONS = TrainingOptions(epochs=4, batch_rows=64, learning_rate=3e-3)


def built(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return catalog.build(name, TABLE, options)


def test_the_detector_holds_the_weights_of_the_best_epoch() -> None:
    detector = built("autoencoder", widths=[16])
    seen: list[tuple[int, float]] = []
    held_back = table_rows(200, seed=2)
    options = dataclasses.replace(OPTIONS, learning_rate=0.3)  # so high that the loss jumps
    learned = learn(
        detector, table_rows(400, seed=1), held_back, options, lambda *e: seen.append(e)
    )
    assert [loss for _, loss in seen] == list(learned.losses)
    assert learned.best_epoch == 1 + min(range(len(seen)), key=lambda i: seen[i][1])
    assert held_back_loss(detector, held_back) == pytest.approx(min(learned.losses))


def test_it_stops_when_the_held_back_loss_has_not_fallen_for_the_patience() -> None:
    options = dataclasses.replace(OPTIONS, epochs=50, patience=2, learning_rate=0.3)
    learned = learn(
        built("autoencoder", widths=[16]),
        table_rows(400, seed=1),
        far_table_rows(50, seed=2),
        options,
    )
    assert len(learned.losses) == learned.best_epoch + 2


@pytest.mark.parametrize("name", ["autoencoder", "classifier", "isolation_forest"])
def test_the_same_seed_gives_the_same_scores_and_another_does_not(name: str) -> None:
    rows = joined([table_rows(400, seed=1), far_table_rows(40, seed=2)])
    found = []
    for seed in (0, 0, 1):
        detector = built(name)
        learn(detector, rows, rows, dataclasses.replace(OPTIONS, epochs=1, seed=seed))
        found.append(scored(detector, rows))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_loss_that_is_not_finite_is_refused() -> None:
    rows = table_rows(200, seed=1)
    broken = Batch(rows.numeric * torch.nan, rows.codes)
    with pytest.raises(NonFiniteLoss, match="epoch 1"):
        learn(built("autoencoder", widths=[8]), broken, broken, OPTIONS)


def test_small_data_takes_small_batches_and_several_passes() -> None:
    assert batches_of(1_000_000, 1024) == (1024, 1)
    assert batches_of(50_000, 1024) == (500, 1)
    assert batches_of(320, 1024) == (32, 10)


def test_a_calibrated_autoencoder_knows_its_usual_error() -> None:
    detector = built("autoencoder", widths=[16])
    assert isinstance(detector, Autoencoder)
    learn(detector, table_rows(400, seed=1), table_rows(200, seed=2), OPTIONS)
    assert not torch.equal(detector.variance, torch.ones_like(detector.variance))
