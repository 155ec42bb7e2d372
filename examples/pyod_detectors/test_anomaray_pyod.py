"""Each model of PyOD keeps the contract of detectors."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from anomaray_pyod.detector import PyOD, PyODConfig
from anomaray_pyod.models import MODELS, REFUSED

from models.contract.layouts import TABLE, table_rows
from models.contract.suite import DetectorContract, Subject, trained
from models.refusal import Refusal


class TestPyOD(DetectorContract):
    subjects = tuple(Subject(name, PyOD, {"model": name, "sample_rows": 1000}) for name in MODELS)


FOREST = next(subject for subject in TestPyOD.subjects if subject.name == "IForest")


@pytest.mark.parametrize("subject", TestPyOD.subjects, ids=lambda subject: subject.name)
def test_forged_arrays_are_refused(subject: Subject) -> None:
    detector = trained("table", subject)
    state = detector.state_dict()
    for path in detector.config.state:
        array = state[f"state_{path.replace('.', '')}"]
        for forged in (array[:-1] if array.ndim else array[None], array * torch.nan):
            shapes = {**detector.config.state, path: tuple(forged.shape)}
            fresh = PyOD(detector.layout, replace(detector.config, state=shapes))
            with_forged = {**state, f"state_{path.replace('.', '')}": forged}
            if path == "rows" and forged.isfinite().all():  # fewer rows are rows
                fresh.load_state_dict(with_forged)
                continue
            with pytest.raises(Refusal, match="expected the arrays of PyOD's"):
                fresh.load_state_dict(with_forged)


@pytest.mark.parametrize("column", [0, 1, 2, 4], ids=["left", "right", "feature", "rows"])
@pytest.mark.parametrize("number", [-7.0, -1.0, 0.0, 0.5, 1e9, 1e300])
def test_a_forged_node_of_a_tree_is_refused(column: int, number: float) -> None:
    """The first node is no leaf: -1 and 0 are no child of it, and 0 is a feature."""
    detector = trained("table", FOREST)
    state = dict(detector.state_dict())
    state["state_nodes"] = state["state_nodes"].clone()
    state["state_nodes"][0, column] = number
    fresh = PyOD(detector.layout, detector.config)
    if (column, number) in [(2, 0.0), (4, 1e9)]:
        fresh.load_state_dict(state)
        return
    with pytest.raises(Refusal, match="expected the arrays of PyOD's IForest"):
        fresh.load_state_dict(state)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(Refusal, match=f"PyOD's {name} is not usable here: "):
        PyODConfig(name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "NoModel"}, "expected one of GMM, HBOS"),
        ({"model": "KNN", "options": {"n_neighbours": 3}}, "options: expected some of algorithm"),
        ({"model": "INNE", "options": {"n_estimators": 10**9}}, "numbers up to 10,000"),
    ],
)
def test_options_that_pyod_does_not_know_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=message):
        PyODConfig(**given)


@pytest.mark.parametrize("options", [{"n_bins": "auto"}, {"n_bins": 1}, {"n_bins": "no"}], ids=str)
def test_options_that_lead_to_other_arrays_are_refused_when_it_is_fitted(
    options: dict[str, Any],
) -> None:
    detector = PyOD(TABLE, PyODConfig("HBOS", options))
    with pytest.raises(Refusal, match=r"HBOS .*choose other|choose another model or options"):
        detector.fit(table_rows(100, 0), seed=0)
