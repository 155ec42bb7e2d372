"""`tune`: trials by Ray Tune, kept as they end, and a best one to paste into the spec."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cluster.lake.output.schemas import REGISTRY
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from jobs.spec.spec import load
from jobs.train import TrainRequest, train
from jobs.tune import tune
from models.bundle import open_bundle
from models.refusal import Refusal
from tests.night.conftest import write_spec
from tests.night.test_derived import SECTIONS, run_json


def test_more_trials_go_on_from_those_that_ended(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On derived rows; each epoch of a detector that learns by gradient is reported."""
    sections = SECTIONS | {
        "detector": {"name": "autoencoder", "floor": 0.002},
        "training": SECTIONS["training"] | {"epochs": 2},
    }
    path = write_spec(tmp_path, data / "flows", tmp_path / "out", **sections)
    few = tune(load(path), 2)
    said = "".join(capfd.readouterr())
    ours = re.compile(
        r"tuning autoencoder of|local engine|trials by Ray Tune: |\d{4}-\d\d-\d\d [\d:]+ \[info"
    )
    assert [line for line in said.splitlines() if line and not ours.match(line)] == []
    assert max(trial["epochs"] for trial in few["trials"]) == 2
    more = run_json("tune", path, "--trials", "3")
    seconds = {trial["number"]: trial["seconds"] for trial in more["trials"]}
    assert sorted(seconds) == [0, 1, 2]
    for trial in few["trials"]:
        assert seconds[trial["number"]] == trial["seconds"]
    figures = [trial["auroc"] for trial in more["trials"]]
    assert figures == sorted(figures, reverse=True)
    assert yaml.safe_load(more["yaml"])["detector"] == {"name": "autoencoder", **more["best"]}
    assert more["best"]["floor"] == 0.002


def test_a_detector_without_options_to_tune_is_refused(data: Path, tmp_path: Path) -> None:
    spec = load(write_spec(tmp_path, data / "flows", tmp_path / "out", detector={"name": "ecod"}))
    with pytest.raises(
        Refusal, match="ecod has no options to tune; detectors that have: autoencoder"
    ):
        tune(spec, 2)


def test_auto_trains_the_winner_and_the_bundle_says_why(tmp_path: Path) -> None:
    """A watch without a numeric column, whose rows are labelled normal."""
    numbers = np.random.default_rng(0)
    for day in range(1, 4):
        flat = pa.array(numbers.normal(size=300 * 8), pa.float32())
        vectors = pa.FixedSizeListArray.from_arrays(flat, 8)
        table = pa.table({"embedding": vectors, "label": pa.array([0] * 300)})
        (tmp_path / "in" / f"day={day}").mkdir(parents=True)
        pq.write_table(table, tmp_path / "in" / f"day={day}" / "part-0.parquet")
    spec = load(
        write_spec(
            tmp_path,
            tmp_path / "in",
            tmp_path / "out",
            columns={"embedding": {"role": "vector"}, "label": {"role": "label"}},
            detector={"name": "auto", "budget_seconds": 1e-6, "rows": 500},
            training={"days": None, "epochs": 1},
        )
    )
    made = train(spec, TrainRequest(engine="local"))
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
    bundle = open_bundle(registry.read_bundle(made.bundle))
    chosen = bundle.metadata["chosen"]
    assert chosen["winner"] == bundle.detector_name
    assert "planted anomalies" in chosen["criterion"]
    assert chosen["tried"][0]["candidate"] == "gaussian"
    assert chosen["tried"][0]["figure"] is not None
