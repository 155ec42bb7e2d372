"""How many threads torch has in a worker of Ray."""

import os
import subprocess
import sys

import pytest
import ray

from cluster.runtime.shipping import ROOT
from cluster.runtime.threads import VARIABLE, set_torch_threads

_AS_RAY_DOES = f"""
import os
os.environ.setdefault({VARIABLE!r}, "1")
from cluster.runtime.threads import set_torch_threads
print(set_torch_threads(2))
"""


@pytest.mark.parametrize(("operator", "threads"), [("3", 3), ("1", 1), (None, 2), ("", 2)])
def test_torch_has_the_threads_that_the_operator_set_or_else_those_of_the_plan(
    operator: str | None, threads: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {} if operator is None else {VARIABLE: operator}
    command = [sys.executable, "-c", _AS_RAY_DOES]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(threads), done.stderr


def test_a_worker_of_ray_knows_what_the_operator_set(ray_session: None) -> None:
    @ray.remote(num_cpus=1)
    class Worker:
        def start(self) -> int:
            return set_torch_threads(2)

    environment = {"env_vars": {VARIABLE: "3"}}
    worker = Worker.options(runtime_env=environment).remote()  # type: ignore[attr-defined]
    assert ray.get(worker.start.remote()) == 3
