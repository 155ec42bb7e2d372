"""Processes are stopped and go on later, or race for one day."""

import signal
from pathlib import Path

from tests.faults.fault import fault
from tests.faults.lake import DAY, OTHER_DAY, difference, read_flags
from tests.faults.processes import Command, send, until
from tests.faults.surroundings import needs_compiler, preload
from tests.faults.trial import ENGINES, PER_TASK, Trial

# The patience that a fault gives the driver where an actor is to hang.
STALL_S = "10"
# Where a split hangs: a trial of it alone gets half of that.
SPLIT_STALL_S = "20"
# The first sees that it hangs, the second that it is the split.
_COMMANDS = 2
_HANG = Path(__file__).with_name("hang.c")


@fault("actor-stopped", "SIGSTOP of the actor, SIGCONT some seconds later", on_ray=True)
def actor_stopped(trial: Trial) -> None:
    count, seconds = trial.chance.randrange(1, 12), trial.chance.uniform(2, 20)
    trial.moment(f"after record {count}, for {seconds:.0f} s")
    command = trial.start()
    if trial.reached(command, "record", count):
        stopped = _stop_actors(trial, command)
        command.wait(seconds)
        for pid in stopped:
            send(pid, signal.SIGCONT)
    must_survive(trial, command)
    trial.settle()


@fault("actor-hangs", "SIGSTOP of the actors, for good", on_ray=True)
def actor_hangs(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    trial.moment(f"after {step} {count}")
    command = trial.start(ANOMARAY_STALL_SECONDS=STALL_S)
    if trial.reached(command, step, count):
        _stop_actors(trial, command)
    must_survive(trial, command)
    trial.settle()


@fault("split-hangs", "a split whose reading never returns", slow=True, missing=needs_compiler)
def split_hangs(trial: Trial) -> None:
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 1}
    trial.lake.write_spec(gates=gates)
    path = trial.chance.choice(trial.lake.files())
    trial.moment(path.name)
    trial.lake.leave_out(path.name)
    hangs = preload(trial, _HANG) | {"HANG_FILE": str(path)}
    hangs["ANOMARAY_STALL_SECONDS"] = SPLIT_STALL_S
    codes: list[int] = []
    while len(codes) < _COMMANDS and 0 not in codes:
        codes.append(trial.finish(trial.start(**hangs)))
    trial.struck()
    if 0 not in codes:
        trial.broken(f"no command committed the day without the split: they ended with {codes}")
    trial.settle()


@fault(
    "zombie-actor",
    "SIGSTOP of an actor, its driver killed and run again; then SIGCONT",
    on_ray=True,
)
def zombie_actor(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    trial.moment(f"after {step} {count}")
    command = trial.start()
    stopped: list[int] = []
    if trial.reached(command, step, count):
        stopped = _stop_actors(trial, command)
        command.signal(signal.SIGKILL, but=stopped)
    trial.settle()
    for pid in stopped:
        send(pid, signal.SIGCONT)
    trial.finish_late(command)
    if not until(lambda: not command.processes(), 60):
        trial.note("the actor was there 60 s later")
    trial.settle()


@fault("zombie-driver", "SIGSTOP of a driver and its Ray, a second one runs; then SIGCONT")
def zombie_driver(trial: Trial) -> None:
    step, count = trial.draw_step()
    trial.moment(f"after {step} {count}")
    first = trial.start()
    if trial.reached(first, step, count):
        first.signal(signal.SIGSTOP)
        trial.struck()
    trial.settle()
    first.signal(signal.SIGCONT)
    trial.finish_late(first)
    trial.settle()


def must_survive(trial: Trial, command: Command) -> None:
    """A lost actor is no reason for a command to fail."""
    if trial.finish(command) != 0:
        trial.broken("the command failed, though only an actor was killed")


def _stop_actors(trial: Trial, command: Command) -> list[int]:
    pids = [actor.pid for actor in command.actors()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    trial.struck(bool(pids))
    return pids


@fault("drivers-at-once", "two or three drivers of the same run at once")
def drivers_at_once(trial: Trial) -> None:
    _race(trial)


@fault("drivers-at-once-s3", "two or three drivers of the same run at once, on S3", s3=True)
def drivers_at_once_s3(trial: Trial) -> None:
    _race(trial)


def _race(trial: Trial) -> None:
    drivers = trial.chance.choice([2, 3])
    lag = trial.chance.choice([0.0, trial.chance.uniform(0, 6)])
    trial.moment(f"{drivers} drivers, {lag:.1f} s apart")
    commands: list[Command] = []
    for _ in range(drivers):
        if commands:
            commands[-1].wait(lag)
        commands.append(trial.start())
    codes = [trial.finish(command) for command in commands]
    trial.struck()
    if 0 not in codes:
        trial.broken("none of the drivers committed the day")
    trial.settle()
    if len(trial.committed_runs()) != 1:
        trial.broken(f"the day was committed {len(trial.committed_runs())} times")


@fault("two-bundles", "two drivers of one day with different bundles")
def two_bundles(trial: Trial) -> None:
    step, count = trial.draw_step(["plan", "attempt", "record", "commit"])
    trial.moment(f"promoted after {step} {count}")
    first = trial.start()
    trial.struck(trial.reached(first, step, count))
    trial.lake.promote(trial.lake.base.other)
    second = trial.start()
    trial.finish(first)
    trial.finish(second)
    trial.settle()


@fault("two-days", "drivers of different days at once: both commit", s3=True)
def two_days(trial: Trial) -> None:
    lag = trial.chance.uniform(0, 2)
    trial.moment(f"{lag:.1f} s apart")
    spec = str(trial.lake.spec)
    commands = [trial.start("score", spec, "--day", OTHER_DAY, "--json")]
    commands[0].wait(lag)
    commands.append(trial.start())
    codes = [trial.finish(command) for command in commands]
    trial.struck()
    if any(codes):
        trial.broken(f"both days should be committed; the commands ended with {codes}")
    trial.settle()
    _judge_other_day(trial)


@fault("backfill-killed", "SIGKILL of a backfill of two days, which is given again")
def backfill_killed(trial: Trial) -> None:
    step, count = trial.draw_step()
    trial.moment(f"after {step} {count}")
    command = _backfill(trial)
    if trial.reached(command, step, count):
        trial.kill(command)
    for _ in range(trial.restarts):
        if trial.finish(_backfill(trial)) == 0:
            break
    else:
        trial.broken(f"the backfill failed {trial.restarts} times after the fault")
    trial.settle()
    _judge_other_day(trial)


def _backfill(trial: Trial) -> Command:
    engine = trial.chance.choice(ENGINES)
    days = f"{OTHER_DAY}..{DAY}"
    return trial.start("backfill", str(trial.lake.spec), "--days", days, "--engine", engine)


def _judge_other_day(trial: Trial) -> None:
    rows = read_flags(trial.lake.table(), OTHER_DAY)
    wrong = difference(rows, trial.lake.expected(OTHER_DAY))
    if any(wrong):
        trial.broken("the other day: {} lost, {} doubled, {} different".format(*wrong))
