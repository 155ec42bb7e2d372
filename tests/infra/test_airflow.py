"""The example DAG: read as text, and imported where `make infra` has installed an Airflow."""

import ast
import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.infra.commands import check_verb
from tests.infra.rendering import ROOT, of_kind

_DAG = ROOT / "infra/airflow/anomaray_nightly.py"
# What Airflow's own interpreter runs: what its scheduler would see of the file.
_READ = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=sys.argv[1])
dags = [
    {
        "id": dag.dag_id, "cron": dag.schedule, "catches_up": dag.catchup,
        "at_once": dag.max_active_runs, "tasks": [task.task_id for task in dag.tasks],
        "retries": [task.retries for task in dag.tasks],
    }
    for dag in bag.dags.values()
]
print(json.dumps({"errors": bag.import_errors, "dags": dags}))
"""


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
    assert not any(word in command.lower() for word in ("token", "secret", "password"))
    program, *words = shlex.split(ast.literal_eval(command.removeprefix("f")))
    assert (program, words[:2]) == (".venv/bin/python", ["-m", "jobs"])
    check_verb(words[2:])
    assert "env" not in task  # the worker's own environment has the token


def test_airflow_imports_the_dag_without_an_error(tmp_path: Path) -> None:
    """By an Airflow in an environment of its own: several of its pins are against our lock."""
    python = ROOT / ".venv-airflow/bin/python"
    if not (python.parents[1] / ".done").exists():
        pytest.skip(f"Airflow is not installed in {python.parents[1]}: `make infra` does it")
    environment = {"PATH": os.environ["PATH"], "AIRFLOW_HOME": str(tmp_path)}
    command = [str(python), "-c", _READ, str(_DAG)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["errors"] == {}
    (dag,) = found["dags"]
    assert dag == {
        "id": "anomaray_nightly",
        "cron": "30 1 * * *",
        "catches_up": False,
        "at_once": 1,
        "tasks": ["nightly"],
        "retries": [3],
    }
