"""The trials of nodes: `python -m tests.nodes faults`, `cut`, `overhead`, then `report`.

Each adds to `--results`, so that they can be run apart and again; `report` writes `--page`.
"""

import argparse
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.conftest import moto
from tests.faults.lake import using
from tests.faults.processes import Command, until
from tests.nodes import report
from tests.nodes.faults import (
    CUT_SCORER,
    CUT_WORKER,
    FAULTS,
    QUIET_APART,
    QUIET_SCORE,
    QUIET_TRAIN,
    Fault,
    P,
)
from tests.nodes.machines import HEALTH, machines
from tests.nodes.namespaces import bridge, missing, network, server_address
from tests.nodes.report import OWN_CHECKS, Played, Timed
from tests.nodes.watch import EPOCHS, Trial, Watch, receipt

# (nodes, CPUs of each): as many actors on one node as on several.
_SHAPES = ((1, 2), (2, 1), (1, 3), (3, 1))
_COPIES = 400  # of the small day's rows, for a day that takes seconds
_BUCKET = "nodes"


def main() -> None:
    given = _arguments()
    if given.what == "report":
        given.page.write_text(report.page(given.results))
        return
    with tempfile.TemporaryDirectory(prefix="nodes-", ignore_cleanup_errors=True) as folder:
        watch = Watch(Path(folder) / "watch")
        if given.what == "overhead":
            _overhead(watch, given.results, given.runs)
        elif given.what == "faults":
            _faults(watch, given.results, given.runs, given.fault)
        else:
            _cut(watch, given, Path(folder))


def _chosen(watch: Watch, faults: Sequence[Fault[P]], names: list[str]) -> list[Fault[P]]:
    """Those of these names, or all; what they score is learned first."""
    chosen = [fault for fault in faults if not names or fault.name in names]
    if not all(fault.trains for fault in chosen):
        watch.learn()
    return chosen


def _faults(watch: Watch, results: Path, runs: int, names: list[str]) -> None:
    """Each fault, and none, in turns."""
    faults = _chosen(watch, (QUIET_SCORE, QUIET_TRAIN, *FAULTS), names)
    with machines(3) as there:
        for number in range(runs):
            for fault in faults:
                there.restore(3)
                trial = _trial(watch, fault, f"{fault.name.replace(' ', '-')}-{number}")
                _play(there, fault, trial, results)


def _cut(watch: Watch, given: argparse.Namespace, folder: Path) -> None:
    """The network of one machine of three, whose place another takes before the next trial."""
    if reason := missing():
        print(f"not played: {reason}")
        return
    faults = _chosen(watch, (*QUIET_APART, CUT_SCORER, CUT_WORKER), given.fault)
    health = HEALTH
    if given.own_health_checks:
        health = {}
        faults = [
            replace(fault, name=fault.name + OWN_CHECKS)
            for fault in faults
            if fault not in QUIET_APART
        ]
    with (
        bridge(),
        moto(server_address()) as server,
        using(server),
        network(folder, 3, server.environment, health) as there,
    ):
        put = urllib.request.Request(f"{server.endpoint}/{_BUCKET}", method="PUT")
        urllib.request.urlopen(put).close()
        for number in range(given.runs):
            for fault in faults:
                # The one that was cut before is known to be gone, too.
                until(lambda: there.alive() == len(there.machines), 90)
                name = f"{fault.name.replace(' ', '-')}-{number}"
                trial = _trial(watch, fault, name, _BUCKET)
                _play(there, fault, trial, given.results, **server.environment)
                if len(there.machines) < 3:
                    there.add()


def _trial(watch: Watch, fault: Fault[P], name: str, bucket: str | None = None) -> Trial:
    return watch.trial(name, bucket, learned=not fault.trains)


def _play(there: P, fault: Fault[P], trial: Trial, results: Path, **environment: str) -> None:
    began = time.monotonic()
    command = fault.start(there, trial, **environment)
    struck = fault.strike(there, trial, command)
    code = trial.finish(command)
    seconds = round(time.monotonic() - began, 1)
    if fault.trains:
        lost, doubled, same = _epochs(trial, code)
    else:
        judged = trial.judge()
        lost, doubled, same = judged.lost, judged.doubled, judged.same
    found = Played(fault.name, struck, code == 0, lost, doubled, same, seconds)
    print(found if code == 0 else f"{found}\n{_last_words(command)}", flush=True)
    report.append(results, found)


def _epochs(trial: Trial, code: int | None) -> tuple[int, int, bool]:
    """(missing, double, whether each is there once) of the epochs in what was learned."""
    if code != 0:
        return EPOCHS, 0, False
    there = [epoch["epoch"] for epoch in trial.learned().metadata["history"]]
    missing, double = EPOCHS - len(set(there)), len(there) - len(set(there))
    return missing, double, there == list(range(1, EPOCHS + 1))


def _last_words(command: Command) -> str:
    return command.errors[-1500:]


def _overhead(watch: Watch, results: Path, runs: int) -> None:
    """The large day on each shape of cluster, in turns."""
    watch.learn()
    rows = watch.enlarge(_COPIES)
    for number in range(runs):
        for nodes, cpus in _SHAPES:
            with machines(nodes, cpus) as there:
                trial = watch.trial(f"{nodes}x{cpus}-{number}")
                command = QUIET_SCORE.start(there, trial)
                code = trial.finish(command)
                if code != 0:
                    raise SystemExit(f"scoring ended with {code}:\n{command.errors[-3000:]}")
            told = receipt(command)
            assert told["scored"] == rows
            found = Timed(nodes, nodes * cpus, rows, told["seconds"])
            print(found, flush=True)
            report.append(results, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nodes", description=__doc__)
    parser.add_argument("what", choices=["faults", "cut", "overhead", "report"])
    parser.add_argument("--runs", type=int, default=3, help="trials of each")
    parser.add_argument("--fault", action="append", default=[], help="only this one; repeatable")
    parser.add_argument(
        "--own-health-checks", action="store_true", help="leave Ray's as they are, in `cut`"
    )
    parser.add_argument("--results", type=Path, default=Path("demo/nodes/results.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/nodes.md"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
