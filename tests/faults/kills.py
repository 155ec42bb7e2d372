"""Processes are killed: the driver, its actors, Ray's own."""

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from cluster.lake.output.schemas import RUNS
from tests.faults.fault import fault
from tests.faults.processes import Command, send, until
from tests.faults.proxy import Request, Rule, acting
from tests.faults.stops import STALL_S, must_survive
from tests.faults.trial import PER_TASK, Trial

# As `cluster.scoring` says: so often is a split begun that never ends, first beside others.
ATTEMPTS, PROOFS = 4, 2
_KILLS = 6  # more than the attempts that a task has beside others
_PAGE = os.sysconf("SC_PAGE_SIZE")


@fault("driver-killed", "SIGKILL of the driver and its Ray, when a step's object is there")
def driver_killed(trial: Trial) -> None:
    step, count = trial.draw_step()
    trial.moment(f"after {step} {count}")
    command = trial.start()
    if trial.reached(command, step, count):
        trial.kill(command)
    trial.settle()


@fault("driver-killed-again", "SIGKILL of six drivers, each when it has begun the same splits")
def driver_killed_again(trial: Trial) -> None:
    trial.moment(f"after an attempt, {_KILLS} times")
    for _ in range(_KILLS):
        begun = trial.count("attempt")
        command = trial.start()
        if trial.reached(command, "attempt", begun + 1):
            trial.kill(command)
    trial.settle()


@fault("driver-killed-any-time", "SIGKILL of the driver and its Ray, at any time")
def driver_killed_any_time(trial: Trial) -> None:
    seconds = trial.chance.uniform(0, 9)
    trial.moment(f"after {seconds:.1f} s")
    command = trial.start()
    if command.wait(seconds) is None:
        trial.kill(command)
    trial.settle()


@fault("driver-killed-alone", "SIGKILL of the driver; its Ray is left to find out", on_ray=True)
def driver_killed_alone(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    overlap = trial.chance.random() < 0.5
    trial.moment(f"after {step} {count}, {'restarted at once' if overlap else 'then quiet'}")
    command = trial.start()
    if trial.reached(command, step, count):
        send(command.pid, signal.SIGKILL)
        trial.struck()
        if not overlap:
            if not until(lambda: not command.processes(), 60):
                trial.note("its Ray was there 60 s later")
            trial.kill(command)
    trial.settle()


@fault("driver-killed-at-request", "SIGKILL of all before or after the PUT of a step", s3=True)
def driver_killed_at_request(trial: Trial) -> None:
    step, count = trial.draw_step()
    side = trial.chance.choice(["before", "after"])
    trial.moment(f"{side} {step} {count}")
    commands: list[Command] = []
    trial.at_request(step, count, side, lambda: trial.kill(commands[0]))
    commands.append(trial.start())
    commands[0].wait(300)
    trial.settle()


@fault("driver-killed-at-snapshot", "SIGKILL of all before or after a read of the input", s3=True)
def driver_killed_at_snapshot(trial: Trial) -> None:
    _killed_reading(trial, lambda command: trial.kill(command), lambda command: True)


@fault(
    "actor-killed-reading", "SIGKILL of the actor while it reads its input", s3=True, on_ray=True
)
def actor_killed_reading(trial: Trial) -> None:
    # The driver has read the footers by the time that there are actors.
    _killed_reading(
        trial,
        lambda command: _kill_actors(trial, command),
        lambda command: bool(command.actors()),
    )


def _killed_reading(
    trial: Trial, action: Callable[[Command], None], when: Callable[[Command], bool]
) -> None:
    count = trial.chance.randrange(1, 13)
    side = trial.chance.choice(["before", "after"])
    trial.moment(f"{side} the answer to read {count} of the input")
    commands: list[Command] = []
    kind = acting(side, lambda: action(commands[0]))

    def is_meant(request: Request) -> bool:
        return _reads_input(request) and bool(commands) and when(commands[0])

    trial.rule(Rule("strike", kind, where=is_meant, skip=count - 1, times=1))
    commands.append(trial.start())
    commands[0].wait(300)
    trial.settle()


def _reads_input(request: Request) -> bool:
    return request.method == "GET" and request.key.startswith("lake/flows/")


@fault(
    "actor-killed-writing",
    "SIGKILL of the actor while a PUT of it is in flight",
    s3=True,
    on_ray=True,
)
def actor_killed_writing(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    side = trial.chance.choice(["before", "after"])
    trial.moment(f"{side} {step} {count}")
    commands: list[Command] = []
    trial.at_request(step, count, side, lambda: _kill_actors(trial, commands[0]))
    commands.append(trial.start())
    must_survive(trial, commands[0])
    trial.settle()


@fault("actor-killed", "SIGKILL of a scorer actor, once or some times", on_ray=True)
def actor_killed(trial: Trial) -> None:
    times = trial.chance.randrange(1, 4)
    counts = sorted(trial.chance.sample(range(1, 12), times))
    trial.moment(f"after records {counts}")
    command = trial.start()
    for count in counts:
        if trial.reached(command, "record", count):
            _kill_actors(trial, command)
    must_survive(trial, command)
    trial.settle()


@fault("raylet-killed", "SIGKILL of the raylet or of Ray's control store", on_ray=True)
def raylet_killed(trial: Trial) -> None:
    step, count = trial.draw_step(["plan", *sorted(PER_TASK)])
    which = trial.chance.choice(["raylet", "gcs_server"])
    trial.moment(f"{which} after {step} {count}")
    command = trial.start()
    if trial.reached(command, step, count):
        until(lambda: bool(command.raylets()) or command.code is not None, 60)
        for process in command.raylets():
            if which in process.title.partition(" ")[0]:
                send(process.pid, signal.SIGKILL)
                trial.struck()
    trial.finish(command)
    trial.settle()


@fault("out-of-memory", "SIGKILL of the largest process, as the kernel does")
def out_of_memory(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    trial.moment(f"after {step} {count}")
    command = trial.start()
    if trial.reached(command, step, count):
        largest = max(command.processes(), key=lambda p: p.resident, default=None)
        if largest:
            trial.note(f"it was {largest.title[:40]}")
            send(largest.pid, signal.SIGKILL)
            trial.struck()
    trial.finish(command)
    trial.settle()


@fault("memory-limit", "the actor gets no more memory than it has (RLIMIT_AS)", on_ray=True)
def memory_limit(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_TASK))
    more = trial.chance.choice([0, 2**20, 2**24])
    trial.moment(f"{more:,} bytes more after {step} {count}")
    command = trial.start(ANOMARAY_STALL_SECONDS=STALL_S)  # Ray itself may hang without memory
    if trial.reached(command, step, count):
        for actor in command.actors():
            pages = int(Path(f"/proc/{actor.pid}/statm").read_text().split()[0])
            limit = pages * _PAGE + more
            resource.prlimit(actor.pid, resource.RLIMIT_AS, (limit, limit))
            trial.struck()
    trial.finish(command)
    trial.settle()


@fault("split-kills-actor", "a split that kills every process that begins it", s3=True, slow=True)
def split_kills_actor(trial: Trial) -> None:
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 1}
    trial.lake.write_spec(gates=gates)
    file = trial.chance.choice(trial.lake.files()).name
    side = trial.chance.choice(["begun", "written"])
    trial.moment(f"{file}, when it is {side}")
    trial.lake.leave_out(file)

    def is_meant(request: Request) -> bool:
        if request.method != "PUT" or not any(f"/{f}/" in request.key for f in _MARKS[side]):
            return False
        if "/attempts/" in request.key and int(request.key.rpartition("-")[2]) > ATTEMPTS:
            return False  # it is not begun yet: it gets a process of its own
        return _task_ids(trial)[file] in request.key

    kind = acting("after" if side == "begun" else "before", lambda: _kill_scorers(trial))
    rule = trial.rule(Rule("strike", kind, where=is_meant))
    trial.finish(trial.start())
    trial.struck(rule.struck > 0)
    trial.settle()
    if rule.struck != ATTEMPTS + PROOFS:
        trial.broken(f"it killed {rule.struck} processes, expected {ATTEMPTS + PROOFS}")


_MARKS = {"begun": ("attempts", "steps"), "written": ("flags",)}


def _task_ids(trial: Trial) -> dict[str, str]:
    """The tasks of the only run, by the name of a file in them."""
    runs = trial.lake.output.child(RUNS)
    plan = next(found.key for found in runs.list() if found.key.endswith("/plan.json"))
    tasks = json.loads(runs.read(plan))["tasks"]
    return {
        split["key"].rpartition("/")[2]: task["id"] for task in tasks for split in task["splits"]
    }


def _kill_scorers(trial: Trial) -> None:
    """The process that scores a suspect alone; else all actors; else the driver, which scores."""
    command = trial.commands[-1]
    alone = [p for p in command.processes() if "spawn_main" in p.title]
    actors = command.actors()
    for process in alone or actors:
        send(process.pid, signal.SIGKILL)
    if not alone and not actors:
        send(command.pid, signal.SIGKILL)


def _kill_actors(trial: Trial, command: Command) -> None:
    actors = command.actors()
    if actors:
        send(trial.chance.choice(actors).pid, signal.SIGKILL)
        trial.struck()
