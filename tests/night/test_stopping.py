"""Each verb, sent a signal at any moment, ends soon with one line, and nothing of it is left.

The short form draws a few verbs and moments, with a fresh seed; `ANOMARAY_STOP_SEED` sets it.
"""

import os
import random
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # of Ray
import pytest
import typer

from jobs.cli.app import app
from tests.night.conftest import DAYS, watch_at
from tests.night.test_faults import start

SEED = int(os.environ.get("ANOMARAY_STOP_SEED") or secrets.randbelow(2**31))
MOMENTS = range(150)  # tenths of a second after the command hears signals
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DAY = ("--day", DAYS[5])
# SPEC and FOLDER stand for a trained watch and for a folder of the test.
COMMANDS = {
    "init": ("FOLDER/flows", "--output", "FOLDER/first.yaml"),
    "check": ("SPEC",),
    "plan": ("SPEC", *_DAY),
    "train": ("SPEC",),
    "tune": ("SPEC", "--trials", "2"),
    "threshold": ("SPEC",),
    "score": ("SPEC", *_DAY),
    "evaluate": ("SPEC", "--days", DAYS[5]),
    "leaderboard": ("SPEC",),
    "flags": ("SPEC",),
    "nightly": ("SPEC",),
    "backfill": ("SPEC", "--days", f"{DAYS[0]}..{DAYS[5]}"),
    "exporter": ("SPEC", "--metrics-port", "0"),
    "registry": ("SPEC",),
    "promote": ("SPEC", "no-bundle"),
    "rollback": ("SPEC",),
    "keys": ("FOLDER/key",),
    "vacuum": ("SPEC",),
    "demo": ("--folder", "FOLDER/demo"),
    "generate": ("FOLDER/lake", "--days", "900"),
}
# There is nothing for them: no such bundle, one champion, no flags.
REFUSED = ("promote", "rollback", "flags")
RAY = {f"{verb} on Ray": verb for verb in ("train", "score", "nightly")}
ALL = (*COMMANDS, *RAY)


def test_every_verb_has_a_command_here() -> None:
    verbs = typer.main.get_group(app).commands.keys()
    assert {*COMMANDS, "submit"} == verbs  # the tests of jobs interrupt submit


def draw(number: int) -> tuple[str, int, signal.Signals]:
    chance = random.Random(f"{SEED} {number}")
    return chance.choice(ALL), chance.choice(MOMENTS), chance.choice(SIGNALS)


@pytest.mark.parametrize("number", range(3))
def test_a_signal_at_any_moment_ends_a_verb(
    number: int, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    stop(*draw(number), trained, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("verb", ALL)
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_at_every_moment_ends_a_verb(
    verb: str, number: signal.Signals, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    for moment in MOMENTS:
        folder = tmp_path / str(moment)
        folder.mkdir()
        if stop(verb, moment, number, trained, folder):
            break  # it ended before
        shutil.rmtree(folder)


def stop(
    verb: str, moment: int, number: signal.Signals, trained: tuple[Path, Path], folder: Path
) -> bool:
    """Send the signal to the verb; whether it had ended before."""
    spec = watch_at(trained, folder)
    words = COMMANDS[RAY.get(verb, verb)]
    arguments = [word.replace("SPEC", str(spec)).replace("FOLDER", str(folder)) for word in words]
    engine = ("--engine", "ray") if verb in RAY else ()
    process = start(RAY.get(verb, verb), *arguments, *engine)
    while not listens(process.pid):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.005)
    try:
        _, told = process.communicate(timeout=moment / 10)
        refused = (2,) if verb in REFUSED else ()
        assert process.returncode in (0, *refused), f"{verb} failed by itself: {told.decode()}"
        return True
    except subprocess.TimeoutExpired:
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    errors = told.decode()
    case = f"{verb}, {number.name} after {moment / 10} s, ended {process.returncode}: {errors}"
    ended = process.returncode in (128 + number, 0)  # 0: its work was done
    assert ended or (verb in REFUSED and process.returncode == 2), case
    lines = errors.count("Run the same command to resume.")
    assert lines == 1 or process.returncode in (0, 2), case
    assert "Traceback" not in errors, case
    assert "Exception ignored" not in errors, case
    assert not left(process.pid), case
    return False


def listens(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, which Python alone has not."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def left(session: int) -> list[str]:
    """Living processes that the command has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue  # it has just ended
    return found
