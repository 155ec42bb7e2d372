"""Every detector of the catalogue keeps the contract.

A new detector is tested as soon as models/detectors/single.py imports it. Without a GPU,
`tests.models.pretend_device` shows what a detector leaves behind when it moves.
"""

import copy
from typing import Any

import pytest
import torch

from models.contract.layouts import TABLE
from models.contract.suite import (
    DEVICES,
    Case,
    DetectorContract,
    Subject,
    assert_close,
    held_out,
    scores,
    trained,
)
from models.detectors.bases.sequential import Sequential
from models.detectors.catalog import CATALOG
from models.refusal import Refusal
from tests.models.pretend_device import DEVICE, pretending

# They only make training short.
OPTIONS: dict[str, dict[str, Any]] = {
    "anomaly_likelihood": {"order": 4},
    "autoencoder": {"widths": [32, 16]},
    "classifier": {"widths": [32, 16]},
    "cnn_classifier": {"channels": 4, "widths": [16]},
    "convolutional_autoencoder": {"channels": 4, "widths": [16]},
    "deep_svdd": {"channels": 4, "widths": [32, 16], "outputs": 8},
    "diffusion_time": {"widths": [64, 64], "dropout": 0.0},
    "ensemble": {
        "members": [
            {"name": "autoencoder", "widths": [32, 16]},
            {"name": "isolation_forest", "trees": 30, "rows_per_tree": 128},
            {"name": "knn", "sample_rows": 1000},
        ]
    },
    "gan": {"channels": 4, "widths": [32, 16]},
    "hog_knn": {"sample_rows": 1000},
    "isolation_forest": {"trees": 60, "rows_per_tree": 128},
    "knn": {"sample_rows": 3000},
    "stacked_devnet": {
        "members": [{"name": "ecod"}, {"name": "knn", "sample_rows": 1000}, {"name": "pca"}]
    },
    "variational_autoencoder": {"widths": [32, 16]},
}
# A forest cannot cut at a code that it never saw, and it isolates a normal row at the edge of the
# ranges as fast as one far outside (measured here: 0.936).
LEAST_AUROC = {"isolation_forest": 0.9}
SUBJECTS = {
    name: Subject(name, kind, OPTIONS.get(name, {}), LEAST_AUROC.get(name, 0.999))
    for name, kind in CATALOG.items()
}


class TestContract(DetectorContract):
    subjects = tuple(SUBJECTS.values())

    def test_a_detector_that_moves_takes_all_that_it_needs_along(self, case: Case) -> None:
        if case.device != "cpu":
            pytest.skip("it moves from the CPU")
        detector, rows = case.detector, case.rows
        rows = rows.take(torch.arange(0, len(rows.numeric), 5))
        score, explained = scores(detector, rows), detector.contributions(rows)
        # The blocks of a text are counted where they are read.
        waits = len(detector.layout.tokens) if isinstance(detector, Sequential) else 0
        with pretending() as device:
            there, rows = copy.deepcopy(detector).to(DEVICE), rows.to(DEVICE)
            with torch.no_grad():  # this device knows no inference mode
                found = there.score(rows)
            assert device.waits == waits, "the scores wait for the device"
            assert_close(found.cpu(), score, "cpu")
            shares = there.contributions(rows).shares
            torch.testing.assert_close(shares.cpu(), explained.shares, rtol=1e-3, atol=1e-3)
            there.calibrate([rows])
            if there.learns != "gradient":
                there.fit(rows._replace(label=None), seed=0)
            if there.learns != "sample":
                device.waits = 0
                there.train()(rows).sum().backward()
                assert device.waits == waits, "a step of the training waits for the device"
                devices = {p.grad.device for p in there.parameters() if p.grad is not None}
                assert devices == {DEVICE}
            back = there.cpu().eval()
        assert torch.isfinite(scores(back, held_out(case.given.name))).all()


@pytest.mark.skipif("cuda" in DEVICES, reason="the contract runs on CUDA")
def test_the_contract_runs_on_cuda() -> None:
    pytest.skip("torch finds no CUDA device here")


def test_a_state_that_lacks_a_tensor_or_is_of_another_detector_is_refused() -> None:
    forest, pca = (trained("table", SUBJECTS[name]) for name in ("isolation_forest", "pca"))
    state = dict(pca.state_dict())
    with pytest.raises(Refusal, match="IsolationForest"):
        CATALOG.build("isolation_forest", TABLE, OPTIONS["isolation_forest"]).load_state_dict(state)
    with pytest.raises(Refusal, match="size mismatch"):
        CATALOG.build("isolation_forest", TABLE, {"trees": 3}).load_state_dict(forest.state_dict())
    del state["mean"]
    with pytest.raises(Refusal, match="mean"):
        CATALOG.build("pca", TABLE, {}).load_state_dict(state)
