"""The example DAG: imported where Airflow is, else read as text."""

import ast
import importlib.util
from pathlib import Path

import pytest

from tests.infra.rendering import ROOT, of_kind

_DAG = ROOT / "infra/airflow/anomaray_nightly.py"


def _calls(name: str) -> list[dict[str, str]]:
    """The arguments of each call of `name`, as text."""
    tree = ast.parse(_DAG.read_text(), filename=str(_DAG))
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        {keyword.arg or "": ast.unparse(keyword.value) for keyword in call.keywords}
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == name
    ]


def test_the_dag_runs_when_the_night_of_the_cluster_does_and_one_at_a_time() -> None:
    (dag,) = _calls("DAG")
    nightly = of_kind("cpu", "CronJob")["nightly"]["spec"]
    assert ast.literal_eval(dag["schedule"]) == nightly["schedule"]
    assert dag["catchup"] == "False"
    assert dag["max_active_runs"] == "1"


def test_the_dag_submits_the_night_and_names_no_secret() -> None:
    (task,) = _calls("BashOperator")
    command = task["bash_command"]
    assert "-m jobs submit nightly" in command
    assert "--address" in command
    assert not {"token", "secret", "password"} & set(command.lower().split())
    assert "env" not in task  # the worker's own environment has the token


@pytest.mark.skipif(
    importlib.util.find_spec("airflow") is None,
    reason="Airflow is not installed: it pins hundreds of packages, several against our lock",
)
def test_airflow_imports_the_dag_without_an_error(tmp_path: Path) -> None:
    from airflow.models.dagbag import DagBag

    bag = DagBag(dag_folder=str(_DAG), include_examples=False)
    assert not bag.import_errors
    assert set(bag.dags) == {"anomaray_nightly"}
