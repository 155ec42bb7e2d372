"""Training and scoring on a Ray of three nodes, of which one is killed and another comes."""

import json
import subprocess
import sys

import pytest

from cluster.runtime.shipping import ROOT
from tests.nodes.conftest import Training
from tests.nodes.faults import FAULTS, KILLED_SCORER, Fault
from tests.nodes.machines import Machines, driver_environment
from tests.nodes.watch import EPOCHS, Watch, receipt


@pytest.mark.slow  # by lost workers: tests/cluster/training
def test_a_training_on_two_nodes_goes_on_from_its_checkpoint_when_one_is_killed(
    training: Training,
) -> None:
    assert training.worker_nodes == 2
    assert training.struck
    assert training.code == 0, training.errors[-3000:]
    assert "resumed an interrupted training after epoch" in training.errors
    assert "marked dead" in training.errors
    assert json.loads(training.output)["epochs"] == EPOCHS
    history = training.trial.learned().metadata["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))


def test_a_night_that_loses_a_node_commits_the_flags_of_a_quiet_one_bit_for_bit(
    nodes: Machines, watch: Watch
) -> None:
    play(KILLED_SCORER, nodes, watch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [f for f in FAULTS if f is not KILLED_SCORER and not f.trains], ids=lambda f: f.name
)
def test_whatever_befalls_its_nodes_a_night_commits_the_flags_of_a_quiet_one(
    fault: Fault[Machines], nodes: Machines, watch: Watch
) -> None:
    play(fault, nodes, watch)


def play(fault: Fault[Machines], nodes: Machines, watch: Watch) -> None:
    trial = watch.trial(fault.name.replace(" ", "-"))
    command = fault.start(nodes, trial)
    assert fault.strike(nodes, trial, command), command.errors[-2000:]
    assert trial.finish(command) == 0, command.errors[-3000:]
    judged = trial.judge()
    assert (judged.lost, judged.doubled) == (0, 0)
    assert judged.same
    books = receipt(command)
    assert books["rows"] == books["scored"] + books["quarantined"]


@pytest.mark.slow
def test_a_pool_takes_the_room_of_a_node_that_comes(nodes: Machines) -> None:
    splits = 200  # half a minute of work: Ray Data looks for new nodes every 20 s
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.nodes.growing", nodes.address, str(splits)],
        cwd=ROOT,
        env=driver_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    answers = [json.loads(driver.stdout.readline())]
    nodes.add()
    answers += [json.loads(line) for line in driver.stdout]
    assert driver.wait(60) == 0
    *worked, pool = answers
    assert {answer["split"] for answer in worked} == set(map(str, range(splits)))
    assert pool == {"began_with": 3, "most": 4}
    assert len({answer["node"] for answer in worked}) == 4
