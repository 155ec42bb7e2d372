"""What befalls nodes while a driver works: each fault strikes a running command."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tests.faults.processes import Command, until
from tests.nodes.machines import Machines
from tests.nodes.namespaces import Network
from tests.nodes.watch import DAY, FILES, Trial

WORKER, SCORER = "RayTrainWorker", "MapWorker"


P = TypeVar("P", Machines, Network)
Strike = Callable[[P, Trial, Command], bool]  # whether it struck in the middle


@dataclass(frozen=True)
class Fault(Generic[P]):
    """A command and what befalls it."""

    name: str
    trains: bool
    strike: Strike[P]

    def start(self, nodes: P, trial: Trial, **environment: str) -> Command:
        arguments = ["train", str(trial.spec), "--workers", "2", "--json"]
        if not self.trains:
            arguments = ["score", str(trial.spec), "--day", DAY, "--json"]
        return nodes.command(trial.folder, "command", *arguments, **environment)


def _midway(trial: Trial, command: Command) -> bool:
    """Wait for the first records; whether there is more to come."""
    until(lambda: command.code is not None or trial.scored() >= 3, 300)
    return command.code is None and trial.scored() < FILES


def _trained_twice(trial: Trial, command: Command) -> bool:
    until(lambda: command.code is not None or trial.checkpoints() >= 2, 300)
    return command.code is None


def _nothing(nodes: Machines, trial: Trial, command: Command) -> bool:
    return True


def _nothing_apart(nodes: Network, trial: Trial, command: Command) -> bool:
    return True


def _kill_a_scorer(nodes: Machines, trial: Trial, command: Command) -> bool:
    nodes.wait_for(SCORER, 2, command)  # the head's, and one that may be killed
    midway = _midway(trial, command)
    nodes.kill(nodes.holding(SCORER)[-1])
    return midway


def _kill_all_but_the_head(nodes: Machines, trial: Trial, command: Command) -> bool:
    nodes.wait_for(SCORER, 2, command)
    midway = _midway(trial, command)
    for node in nodes.nodes[1:]:
        nodes.kill(node)
    return midway


def _kill_a_scorer_and_add_a_node(nodes: Machines, trial: Trial, command: Command) -> bool:
    midway = _kill_a_scorer(nodes, trial, command)
    nodes.add()
    return midway


def _kill_a_worker(nodes: Machines, trial: Trial, command: Command) -> bool:
    midway = _trained_twice(trial, command)
    nodes.kill(nodes.holding(WORKER)[-1])
    return midway


def _kill_a_worker_and_add_a_node(nodes: Machines, trial: Trial, command: Command) -> bool:
    midway = _kill_a_worker(nodes, trial, command)
    nodes.add()
    return midway


def _cut_a_scorer_off(nodes: Network, trial: Trial, command: Command) -> bool:
    nodes.wait_for(SCORER, 2, command)
    midway = _midway(trial, command)
    if midway:
        nodes.cut(nodes.holding(SCORER)[-1])
    return midway


def _cut_a_worker_off(nodes: Network, trial: Trial, command: Command) -> bool:
    midway = _trained_twice(trial, command)
    if midway:
        nodes.cut(nodes.holding(WORKER)[-1])
    return midway


QUIET_SCORE = Fault("score: nothing", False, _nothing)
QUIET_TRAIN = Fault("train: nothing", True, _nothing)
KILLED_SCORER = Fault("score: a raylet is killed", False, _kill_a_scorer)
KILLED_WORKER = Fault("train: a worker's raylet is killed", True, _kill_a_worker)
FAULTS = (
    KILLED_SCORER,
    Fault("score: a raylet is killed, a node comes", False, _kill_a_scorer_and_add_a_node),
    Fault("score: two raylets of three are killed", False, _kill_all_but_the_head),
    KILLED_WORKER,
    Fault("train: a raylet is killed, a node comes", True, _kill_a_worker_and_add_a_node),
)
# Those of machines apart, whose network and store are others.
QUIET_APART = (
    Fault("score: nothing, machines apart", False, _nothing_apart),
    Fault("train: nothing, machines apart", True, _nothing_apart),
)
CUT_SCORER = Fault("score: a node's network is cut", False, _cut_a_scorer_off)
CUT_WORKER = Fault("train: a worker's network is cut", True, _cut_a_worker_off)
