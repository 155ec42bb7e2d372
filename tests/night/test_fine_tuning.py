"""`train --from`: weights and encoder of a bundle, and what is refused."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import torch

from cluster.lake.output.schemas import REGISTRY
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.storage.opening import open_store
from jobs.spec.spec import Spec, load
from jobs.threshold import choose_threshold
from jobs.train import TrainRequest, train
from jobs.training.warm_start import load_start
from models.bundle import make_bundle, open_bundle
from models.detectors.catalog import CATALOG
from models.encoding.fit import EncoderFit
from models.refusal import Refusal
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.night.conftest import DAYS, write_spec


def registry_of(spec: Spec) -> Registry:
    return Registry(open_store(spec.output.uri).child(REGISTRY))


@pytest.fixture(scope="module")
def champion(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """A watch with a champion that learned from one day, in this process."""
    folder = tmp_path_factory.mktemp("champion")
    spec = load(write_spec(folder, data / "flows", folder / "out"))
    day = ds.dataset(data / "flows" / f"day={DAYS[0]}").to_table().combine_chunks()
    (rows,) = day.to_batches()
    fit = EncoderFit(spec.features, rows.schema)
    fit.update(rows)
    encoder = fit.finish().eval()
    batch = encoder(encoder.extract(rows))
    torch.manual_seed(0)
    detector = CATALOG.build("autoencoder", encoder.layout, spec.detector.options)
    learned = learn(detector, batch, batch, TrainingOptions(epochs=2))
    scores = ScoreSketch()
    scores.update(score_rows(detector, batch).numpy())
    facts: dict[str, Any] = {
        "history": [{"validation_loss": loss} for loss in learned.losses],
        "best_epoch": learned.best_epoch,
        "training": {"days": [DAYS[0]]},
    }
    bundle = make_bundle(encoder, detector, "autoencoder", Calibration(scores), facts)
    registry = registry_of(spec)
    registry.add_bundle(bundle.files)
    threshold = choose_threshold(registry, bundle.id, bundle.calibration, spec.policy)
    registry.promote(Promotion(bundle.id, threshold.id))
    return spec


def test_a_training_from_the_champion_starts_at_its_weights_and_keeps_encoder_and_histories(
    champion: Spec,
) -> None:
    registry = registry_of(champion)
    before = load_start(champion, registry, "champion")
    # Steps so small that the weights must still be those that it started from.
    still = {"epochs": 1, "learning_rate": 1e-12, "baselines": ()}
    briefly = champion.training.model_copy(update=still)
    spec = champion.model_copy(update={"training": briefly})
    made = train(spec, TrainRequest(workers=1, start="champion", promote=False))
    bundle = open_bundle(registry.read_bundle(made.bundle))
    told = bundle.metadata["from"]
    assert told["bundle"] == before.id
    assert told["history"] == before.bundle.metadata["history"]
    assert bundle.encoder.to_document() == before.bundle.encoder.to_document()
    assert len(bundle.metadata["history"]) == 1
    weights = dict(bundle.detector.named_parameters())
    for name, weight in before.bundle.detector.named_parameters():
        torch.testing.assert_close(weights[name], weight)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        ({"name": "autoencoder", "widths": [8]}, r"autoencoder \(widths: \[8\]"),
        ({"name": "pca"}, "expected a bundle of the spec's detector"),
    ],
)
def test_another_detector_or_other_options_are_refused(
    champion: Spec, tmp_path: Path, data: Path, detector: dict[str, Any], message: str
) -> None:
    spec = load(write_spec(tmp_path, data / "flows", champion.output.uri, detector=detector))
    with pytest.raises(Refusal, match=message):
        load_start(spec, registry_of(spec), "champion")


def test_other_columns_are_refused(champion: Spec) -> None:
    name = champion.features[0].name
    columns = {key: column for key, column in champion.columns.items() if key != name}
    other = champion.model_copy(update={"columns": columns})
    with pytest.raises(Refusal, match=f"column '{name}' differs from bundle"):
        load_start(other, registry_of(champion), "champion")


def test_with_auto_the_detector_of_the_bundle_stays(
    champion: Spec, tmp_path: Path, data: Path
) -> None:
    detector = {"name": "auto"}
    spec = load(write_spec(tmp_path, data / "flows", champion.output.uri, detector=detector))
    assert load_start(spec, registry_of(spec), "champion").bundle.detector_name == "autoencoder"
