"""Machines with addresses of their own, whose network is cut; all that they share lies in S3."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import S3Server, moto
from tests.faults.lake import using
from tests.nodes.faults import CUT_SCORER, CUT_WORKER
from tests.nodes.namespaces import Network, bridge, missing, network, server_address
from tests.nodes.watch import EPOCHS, Watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]
BUCKET = "nodes"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """S3 where every machine reaches it."""
    if reason := missing():
        pytest.skip(reason)
    with bridge(), moto(server_address()) as server, using(server):
        put = urllib.request.Request(f"{server.endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(put).close()
        yield server


@pytest.fixture(scope="module")
def apart(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Three machines; another comes for the one that is lost."""
    folder = tmp_path_factory.mktemp("namespaces")
    with network(folder, 3, server.environment) as there:
        yield there


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    watch = Watch(tmp_path_factory.mktemp("apart") / "watch")
    watch.learn()
    return watch


def test_a_machine_whose_network_is_cut_in_the_night_loses_and_doubles_no_flag(
    apart: Network, server: S3Server, learned: Watch
) -> None:
    trial = learned.trial("score-cut", BUCKET)
    command = CUT_SCORER.start(apart, trial, **server.environment)
    assert CUT_SCORER.strike(apart, trial, command), command.errors[-2000:]
    assert trial.finish(command) == 0, command.errors[-3000:]
    judged = trial.judge()
    assert (judged.lost, judged.doubled, judged.same) == (0, 0, True)


def test_a_training_whose_machine_is_cut_off_ends_on_the_others_within_minutes(
    apart: Network, server: S3Server, tmp_path: Path
) -> None:
    if len(apart.machines) < 3:
        apart.add()
    trial = Watch(tmp_path / "watch").trial("train-cut", BUCKET)
    command = CUT_WORKER.start(apart, trial, **server.environment)
    assert CUT_WORKER.strike(apart, trial, command), command.errors[-2000:]
    assert trial.finish(command) == 0, command.errors[-3000:]
    assert "resumed an interrupted training after epoch" in command.errors
    history = trial.learned().metadata["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))
