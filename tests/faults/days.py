"""Days pass between the commands: files are old, vacuums run, and champions come back."""

import os

from tests.faults.fault import fault
from tests.faults.lake import DAY, TABLES
from tests.faults.processes import Command
from tests.faults.proxy import Request, Rule, acting
from tests.faults.surroundings import needs_compiler, shift_clock
from tests.faults.trial import PER_TASK, Trial

_DAY_S = 24 * 60 * 60


@fault("days-pass", "SIGKILL of all, then days and a vacuum, then the same command")
def days_pass(trial: Trial) -> None:
    step, count = trial.draw_step()
    days = trial.chance.choice([2, 9, 40])
    trial.moment(f"after {step} {count}, {days} days")
    command = trial.start()
    if trial.reached(command, step, count):
        trial.kill(command)
    _let_pass(trial, days)
    _vacuum(trial)
    trial.killed_at = None  # what was ended by the vacuum is scored anew
    trial.settle()


@fault("champion-returns", "another champion scores the day, days and a vacuum, then a rollback")
def champion_returns(trial: Trial) -> None:
    step, count = trial.draw_step()
    days = trial.chance.choice([2, 9, 40])
    trial.moment(f"the other killed after {step} {count}, {days} days")
    trial.kill_other_champion(step, count)
    trial.killed_at = None
    _let_pass(trial, days)
    _vacuum(trial)
    trial.struck()
    trial.lake.rollback()
    trial.settle()


@fault("shard-lost", "a committed file of a table is deleted, or cut")
def shard_lost(trial: Trial) -> None:
    name, cut = trial.chance.choice(TABLES), trial.chance.random() < 0.5
    trial.moment(f"one of {name} is {'cut' if cut else 'deleted'}")
    trial.tolerates_unreadable = trial.lost_files = True
    trial.finish(trial.start())
    path = trial.chance.choice(sorted((trial.lake.output_folder / name / f"day={DAY}").iterdir()))
    with trial.reader.still():
        if cut:
            path.write_bytes(path.read_bytes()[:-100])
        else:
            path.unlink()
    trial.struck()
    trial.settle()


@fault(
    "vacuum-during-run",
    "a vacuum of all ages, its clock off",
    missing=needs_compiler,
)
def vacuum_during_run(trial: Trial) -> None:
    step, count = trial.draw_step(["plan", *sorted(PER_TASK), "side commit"])
    seconds = trial.chance.choice([0, 30 * _DAY_S, -30 * _DAY_S])
    trial.moment(f"{seconds:+,} s, after {step} {count}")
    command = trial.start()
    trial.struck(trial.reached(command, step, count))
    clock = shift_clock(trial, seconds) if seconds else {}
    _vacuum(trial, "0", **clock)
    if trial.finish(command) != 0:
        trial.broken("the vacuum made the run fail")
    trial.settle()


@fault("killed-between-tables", "SIGKILL between two commits, then a rollback", s3=True)
def killed_between_tables(trial: Trial) -> None:
    trial.moment("before the flags of another champion")
    trial.finish(trial.start())
    trial.lake.promote(trial.lake.base.other)
    commands: list[Command] = []

    def is_meant(request: Request) -> bool:
        return request.method == "PUT" and request.key.endswith(f"flags/_delta_log/{2:020}.json")

    trial.rule(
        Rule("strike", acting("before", lambda: trial.kill(commands[0])), where=is_meant, times=1)
    )
    commands.append(trial.start())
    commands[0].wait(300)
    trial.killed_at = None
    trial.lake.rollback()
    trial.settle()


def _let_pass(trial: Trial, days: int) -> None:
    """All files of the output become older."""
    for path in trial.lake.output_folder.rglob("*"):
        if path.is_file():
            when = path.stat().st_mtime - days * _DAY_S
            os.utime(path, (when, when))


def _vacuum(trial: Trial, hours: str = "168", **environment: str) -> None:
    given = ("vacuum", str(trial.lake.spec), "--hours", hours, "--no-dry-run", "--yes")
    if trial.finish(trial.start(*given, **environment)) != 0:
        trial.broken("the vacuum failed")
