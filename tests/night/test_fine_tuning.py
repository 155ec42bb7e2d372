"""`train --from`: weights and encoder of a bundle, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from cluster.lake.registry import Registry
from cluster.lake.store import Store
from cluster.scoring import REGISTRY
from jobs.fine_tuning import start_of
from jobs.spec import Spec, load
from jobs.train import train
from models.bundle import open_bundle
from models.refusal import Refusal
from tests.night.conftest import watch_at


def registry_of(spec: Spec) -> Registry:
    return Registry(Store.open(spec.output.uri).child(REGISTRY))


def test_a_training_from_the_champion_keeps_its_encoder_and_both_histories(watch: Spec) -> None:
    registry = registry_of(watch)
    before = start_of(watch, registry, "champion")
    briefly = watch.training.model_copy(update={"epochs": 1})
    made = train(watch.model_copy(update={"training": briefly}), start="champion", workers=1)
    bundle = open_bundle(registry.files(made.bundle))
    told = bundle.metadata["from"]
    assert told["bundle"] == before.id
    assert told["history"] == before.bundle.metadata["history"]
    assert bundle.encoder.to_document() == before.bundle.encoder.to_document()
    first, then = told["history"][0], bundle.metadata["history"][0]
    assert then["train_loss"] < first["train_loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"detector": {"name": "autoencoder", "widths": [8]}}, "autoencoder .widths: .8,"),
        ({"detector": {"name": "pca"}}, "expected a bundle of the spec's detector"),
    ],
)
def test_another_detector_or_other_options_are_refused(
    trained: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    spec = load(watch_at(trained, tmp_path, **changes))
    with pytest.raises(Refusal, match=message):
        start_of(spec, registry_of(spec), "champion")


def test_other_columns_are_refused(watch: Spec) -> None:
    name = watch.features[0].name
    columns = {key: column for key, column in watch.columns.items() if key != name}
    other = watch.model_copy(update={"columns": columns})
    with pytest.raises(Refusal, match=f"found '{name}' not to be as that of bundle"):
        start_of(other, registry_of(watch), "champion")
