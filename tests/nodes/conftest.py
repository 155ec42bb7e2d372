"""Three nodes and one watch for all tests of nodes."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.nodes.faults import KILLED_WORKER
from tests.nodes.machines import Machines, machines
from tests.nodes.watch import Trial, Watch


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[Machines]:
    with machines(3) as there:
        yield there


@pytest.fixture
def nodes(three_nodes: Machines) -> Machines:
    """Three living nodes, whatever an earlier test did to them."""
    three_nodes.restore(3)
    return three_nodes


@dataclass(frozen=True)
class Training:
    """A training with two workers, one of whose nodes was killed."""

    trial: Trial
    worker_nodes: int  # that had a worker before
    struck: bool  # in its middle
    code: int | None
    output: str
    errors: str


@pytest.fixture(scope="session")
def training(three_nodes: Machines, tmp_path_factory: pytest.TempPathFactory) -> Training:
    trial = Watch(tmp_path_factory.mktemp("nodes")).trial("training")
    command = KILLED_WORKER.start(three_nodes, trial)
    held = len(three_nodes.wait_for("RayTrainWorker", 2, command))
    struck = KILLED_WORKER.strike(three_nodes, trial, command)
    code = trial.finish(command)
    return Training(trial, held, struck, code, command.output, command.errors)


@pytest.fixture(scope="session")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """A trained watch, and its day scored on one quiet node."""
    made = Watch(tmp_path_factory.mktemp("nodes"))
    made.learn()
    return made
