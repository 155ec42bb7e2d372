"""What it costs to kill a run half way and to run it again: `python -m tests.bench.resume`.

In each round one run is left alone, and one is killed with all that it started when half of its
tasks are recorded, then given the same command again. Prints the medians and their ratio.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from statistics import median

from tests.bench import prepare
from tests.bench.contenders import anomaray
from tests.bench.measure import ROOT
from tests.bench.prepare import Case
from tests.bench.workloads import BY_NAME, W4

_LOOK_S = 0.01  # between two looks at the journal


def start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def whole(case: Case, out: Path) -> float:
    """Wall seconds of a run that nothing befalls."""
    return timed(fresh(case, out))


def fresh(case: Case, out: Path) -> list[str]:
    shutil.rmtree(out, ignore_errors=True)
    return anomaray.fresh(case.spec, out)


def timed(command: list[str]) -> float:
    started = time.monotonic()
    process = start(command)
    if process.wait() != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return time.monotonic() - started


def resumed(case: Case, out: Path) -> tuple[float, int, int]:
    """Wall seconds of the second half, and how many tasks were done before it, of how many."""
    command = fresh(case, out)
    process = start(command)
    while True:
        done, tasks = _journal(out)
        if tasks and done >= tasks // 2:
            break
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {done} of {tasks} tasks recorded")
        time.sleep(_LOOK_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return timed(command), done, tasks


def _journal(out: Path) -> tuple[int, int]:
    """Tasks that are recorded, and how many the run has; 0 before its plan is written."""
    plans = list(out.glob("_runs/*/plan.json"))
    if not plans:
        return 0, 0
    tasks = len(json.loads(plans[0].read_text())["tasks"])
    return len(list(plans[0].parent.glob("tasks/*/*.json"))), tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/bench"))
    parser.add_argument("--workload", default="W4-64M", choices=("W1", *(w.name for w in W4)))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    case = prepare.case(folder, BY_NAME[given.workload])
    wholes, halves = [], []
    for number in range(given.rounds):
        wholes.append(whole(case, folder / "out" / f"whole-{number}"))
        seconds, done, tasks = resumed(case, folder / "out" / f"resumed-{number}")
        halves.append(seconds)
        print(
            f"round {number + 1}: whole {wholes[-1]:.1f} s; killed with {done} of {tasks} tasks "
            f"done, resumed in {seconds:.1f} s",
            flush=True,
        )
    ratio = median(halves) / median(wholes)
    print(f"{case.name}: resuming at half costs {ratio:.0%} of a whole run")


if __name__ == "__main__":
    main()
