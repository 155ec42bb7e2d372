"""The input changes, the machine runs out, and runs follow runs."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import power
from tests.faults.fault import fault
from tests.faults.trial import PER_TASK, Trial

_PAGE = os.sysconf("SC_PAGE_SIZE")


@fault("file-added", "a file is added to the day during a run")
def file_added(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.add_file(trial.chance))


@fault("file-changed", "a file of the day is written anew during a run")
def file_changed(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.change_file(trial.chance))


@fault("file-removed", "a file of the day is removed during a run")
def file_removed(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.remove_file(trial.chance))


@fault("folder-away", "the day's folder is renamed away, and comes back some seconds later")
def folder_away(trial: Trial) -> None:
    # With gates that let a night lose files, so that a wrong record would be committed.
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 99}
    trial.lake.write_spec(gates=gates)
    step, count = trial.draw_step(["plan", *sorted(PER_TASK)])
    seconds = trial.chance.uniform(1, 6)
    trial.moment(f"after {step} {count}, for {seconds:.0f} s")
    folder = trial.lake.files()[0].parent
    command = trial.start()
    trial.struck(trial.reached(command, step, count))
    away = folder.rename(folder.parent.with_name("away"))
    command.wait(seconds)
    away.rename(folder)
    trial.finish(command)
    trial.settle()


def _input_changes(trial: Trial, change: Callable[[], str]) -> None:
    step, count = trial.draw_step(["plan", *sorted(PER_TASK), "commit"])
    command = trial.start()
    trial.struck(trial.reached(command, step, count))
    trial.moment(f"{change()} after {step} {count}")
    trial.finish(command)
    trial.settle()


def _needs_root() -> str | None:
    if os.geteuid() != 0 or not shutil.which("mount"):
        return "a file system of a few megabytes needs root"
    return None


@fault("disk-full", "the disk of the output is full", missing=_needs_root)
def disk_full(trial: Trial) -> None:
    room = trial.chance.choice([4, 16, 64, 128, 256, 1024, 4096, 8192]) * 1024
    trial.moment(f"{room // 1024:,} KiB left")
    with _small_disk(trial, room) as grow:
        code = trial.finish(trial.start())
        full = "disk is full" in trial.commands[-1].errors
        trial.struck(code != 0)
        if code != 0 and not full:
            trial.note("the message does not say that the disk is full")
        grow()
        trial.settle()


@contextmanager
def _small_disk(trial: Trial, room: int) -> Iterator[Callable[[], None]]:
    """The output on a file system with so much room; yields what makes it large."""
    folder = trial.lake.output_folder
    kept = folder.with_name("kept")
    with trial.reader.still():
        folder.rename(kept)
        folder.mkdir()
        used = sum(-(-p.stat().st_size // _PAGE) + 1 for p in kept.rglob("*")) * _PAGE
        _mount(f"size={used + room}", folder)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
    try:
        yield lambda: _mount("remount,size=1g", folder)
    finally:
        with trial.reader.still():
            # What was written is looked at once more when the trial ends.
            shutil.rmtree(kept)
            shutil.copytree(folder, kept)
            subprocess.run(["umount", "--lazy", folder], check=True)
            folder.rmdir()
            kept.rename(folder)


def _mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


@fault("object-store-small", "Ray's object store has the 75 MiB that are its least", on_ray=True)
def object_store_small(trial: Trial) -> None:
    trial.moment("from the start")
    trial.struck()
    code = trial.finish(trial.start(RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES=str(75 * 2**20)))
    if code != 0:
        trial.broken("the command failed")
    trial.settle()


_CLOCK = Path(__file__).with_name("clock.c")
_DAY_S = 24 * 60 * 60


def shift_clock(trial: Trial, seconds: int) -> dict[str, str]:
    """The environment of a command whose clock is so far ahead."""
    return preload(trial, _CLOCK) | {"CLOCK_SHIFT_S": str(seconds)}


def preload(trial: Trial, source: Path) -> dict[str, str]:
    """The environment of a command with a library of this source."""
    library = trial.folder / f"{source.stem}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}


def needs_compiler() -> str | None:
    return None if shutil.which("cc") else "it is done by a library that needs a cc"


@fault("clock-off", "the clock is a day off, and right again after a kill", missing=needs_compiler)
def clock_off(trial: Trial) -> None:
    seconds = trial.chance.choice([-_DAY_S, _DAY_S])
    step, count = trial.draw_step()
    trial.moment(f"{seconds:+,} s, until after {step} {count}")
    command = trial.start(**shift_clock(trial, seconds))
    if trial.reached(command, step, count):
        trial.kill(command)
    trial.settle()


@fault("power-lost", "the power is lost with all that was not flushed", missing=power.why_not)
def power_lost(trial: Trial) -> None:
    step, count = trial.draw_step()
    lost: power.Lost = trial.chance.choice(["names", "bytes"])
    trial.moment(f"after {step} {count}: {lost} are lost")
    recorder = power.Recorder(trial.lake.output_folder, trial.folder / "record")
    before = power.list_files(recorder.root)
    command = trial.start(**recorder.environment())
    if trial.reached(command, step, count):
        with trial.reader.still():
            command.kill()
            disk = power.Disk()
            for line in recorder.read():
                disk.play(line)
            recorder.leave(disk.left(lost), before)
        trial.kill(command)  # what is in flight is what the disk says
    trial.settle()


@fault("scores-nan", "a detector whose every score is NaN is the champion")
def scores_nan(trial: Trial) -> None:
    before = trial.chance.random() < 0.5
    trial.moment("over a committed day" if before else "on a new day")
    if before:
        trial.finish(trial.start())
    runs = trial.committed_runs()
    trial.lake.promote(trial.lake.base.broken)
    command = trial.start()
    code = trial.finish(command)
    trial.struck()
    if code == 0 or trial.committed_runs() != runs:
        trial.broken(f"scores that are NaN were committed (exit status {code})")
    if not re.search("NaN|finite", command.output + command.errors):
        trial.broken("no message says that the scores are not finite")
    trial.lake.promote(trial.lake.base.champion)
    trial.settle()


@fault("same-run-again", "a committed day is run again with the same bundle")
def same_run_again(trial: Trial) -> None:
    trial.moment("twice")
    trial.struck()
    trial.finish(trial.start())
    version = trial.lake.table().version()
    trial.settle()
    if trial.lake.table().version() != version:
        trial.broken("the table changed, though nothing was new")


@fault("new-bundle", "a committed day is run again with another bundle, killed and resumed")
def new_bundle(trial: Trial) -> None:
    step, count = trial.draw_step()
    trial.moment(f"killed after {step} {count}")
    trial.kill_other_champion(step, count)
    trial.settle()


@fault("vacuum-while-reading", "vacuum of replaced shards, while a reader reads and a run runs")
def vacuum_while_reading(trial: Trial) -> None:
    # A reader that holds a version whose files are gone gets an error; it must not get a part.
    trial.tolerates_unreadable = True
    trial.moment("an hour during a run, all after it")
    trial.struck()
    spec = str(trial.lake.spec)
    trial.finish(trial.start())
    trial.lake.promote(trial.lake.base.other)
    command = trial.start()
    trial.finish(trial.start("vacuum", spec, "--hours", "1", "--no-dry-run", "--yes"))
    trial.finish(command)
    removed = trial.start("vacuum", spec, "--hours", "0", "--no-dry-run", "--yes")
    if trial.finish(removed) != 0 or "were removed" not in removed.errors:
        trial.broken("vacuum failed")
    trial.settle()
