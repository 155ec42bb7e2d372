"""The faults, one function each: what it does to a run, and what an operator does then."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.scoring import RUNS
from tests.faults.lake import DAY, OTHER_DAY, read_flags
from tests.faults.processes import Command, send, until
from tests.faults.proxy import KINDS, Request, Rule, acting, hidden
from tests.faults.reader import difference
from tests.faults.trial import PER_SPLIT, Play, Trial

# As `cluster.scoring` says: so often is a split begun that never ends.
ATTEMPTS = 4
# The patience that a fault gives the driver where an actor is to hang.
STALL_S = "10"
# Shares of requests that a fault of S3 strikes.
SHARES = (0.01, 0.1, 0.5)
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Fault:
    """An entry of the table of faults."""

    name: str
    what: str
    play: Play
    s3: bool = False  # played on S3, through the proxy; else on a local disk
    slow: bool = False  # takes more than a minute
    missing: Callable[[], str | None] = lambda: None  # why it cannot be played here


FAULTS: dict[str, Fault] = {}


def fault(
    name: str,
    what: str,
    *,
    s3: bool = False,
    slow: bool = False,
    missing: Callable[[], str | None] = lambda: None,
) -> Callable[[Play], Play]:
    def register(play: Play) -> Play:
        FAULTS[name] = Fault(name, what, play, s3, slow, missing)
        return play

    return register


# Kills


@fault("driver-killed", "SIGKILL of the driver and its Ray, when a step's object is there")
def driver_killed(trial: Trial) -> None:
    step, count = trial.draw_step()
    trial.moment(f"after {step} {count}")
    command = trial.start()
    if trial.reached(command, step, count):
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


@fault("driver-killed-alone", "SIGKILL of the driver; its Ray is left to find out")
def driver_killed_alone(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_SPLIT))
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


@fault("actor-killed-reading", "SIGKILL of the actor while it reads its input", s3=True)
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


@fault("actor-killed-writing", "SIGKILL of the actor while a PUT of it is in flight", s3=True)
def actor_killed_writing(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_SPLIT))
    side = trial.chance.choice(["before", "after"])
    trial.moment(f"{side} {step} {count}")
    commands: list[Command] = []
    trial.at_request(step, count, side, lambda: _kill_actors(trial, commands[0]))
    commands.append(trial.start())
    _must_survive(trial, commands[0])
    trial.settle()


@fault("actor-killed", "SIGKILL of a scorer actor, once or some times")
def actor_killed(trial: Trial) -> None:
    times = trial.chance.randrange(1, 4)
    counts = sorted(trial.chance.sample(range(1, 12), times))
    trial.moment(f"after records {counts}")
    command = trial.start()
    for count in counts:
        if trial.reached(command, "record", count):
            _kill_actors(trial, command)
    _must_survive(trial, command)
    trial.settle()


@fault("raylet-killed", "SIGKILL of the raylet or of Ray's control store")
def raylet_killed(trial: Trial) -> None:
    step, count = trial.draw_step(["plan", *sorted(PER_SPLIT)])
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
    step, count = trial.draw_step(sorted(PER_SPLIT))
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


@fault("memory-limit", "the actor gets no more memory than it has (RLIMIT_AS)")
def memory_limit(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_SPLIT))
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


@fault("split-kills-actor", "a split whose every attempt kills its actor", s3=True, slow=True)
def split_kills_actor(trial: Trial) -> None:
    gates = {"flag_rate": [0, 0.5], "volume": None, "quarantine_rate": 1, "quarantined_files": 1}
    trial.lake.write_spec(gates=gates)
    file = trial.chance.choice(trial.lake.files()).name
    # After the journal knows of the attempt, or before its output is written.
    side, folder = trial.chance.choice([("after", "attempts"), ("before", "flags")])
    trial.moment(f"{file}, {side} the write to {folder}/")
    trial.lake.leave_out(file)
    commands: list[Command] = []

    def is_meant(request: Request) -> bool:
        written = request.method == "PUT" and f"/{folder}/" in request.key
        return written and _task_ids(trial)[file] in request.key

    rule = Rule("strike", acting(side, lambda: _kill_all_actors(commands[0])), where=is_meant)
    trial.rule(rule)
    commands.append(trial.start())
    trial.finish(commands[0])
    trial.struck(rule.struck > 0)
    trial.settle()
    if rule.struck != ATTEMPTS:
        trial.broken(f"the split was attempted {rule.struck} times, expected {ATTEMPTS}")


def _task_ids(trial: Trial) -> dict[str, str]:
    """The tasks of the only run, by the name of a file in them."""
    runs = trial.lake.output.child(RUNS)
    plan = next(found.key for found in runs.list() if found.key.endswith("/plan.json"))
    tasks = json.loads(runs.read(plan))["tasks"]
    return {
        split["key"].rpartition("/")[2]: task["id"] for task in tasks for split in task["splits"]
    }


def _kill_all_actors(command: Command) -> None:
    for actor in command.actors():
        send(actor.pid, signal.SIGKILL)


def _kill_actors(trial: Trial, command: Command) -> None:
    actors = command.actors()
    if actors:
        send(trial.chance.choice(actors).pid, signal.SIGKILL)
        trial.struck()


def _must_survive(trial: Trial, command: Command) -> None:
    """A lost actor is no reason for a command to fail."""
    if trial.finish(command) != 0:
        trial.broken("the command failed, though only an actor was killed")


# Stops


@fault("actor-stopped", "SIGSTOP of the actor, SIGCONT some seconds later")
def actor_stopped(trial: Trial) -> None:
    count, seconds = trial.chance.randrange(1, 12), trial.chance.uniform(2, 20)
    trial.moment(f"after record {count}, for {seconds:.0f} s")
    command = trial.start()
    if trial.reached(command, "record", count):
        stopped = _stop_actors(trial, command)
        command.wait(seconds)
        for pid in stopped:
            send(pid, signal.SIGCONT)
    _must_survive(trial, command)
    trial.settle()


@fault("actor-hangs", "SIGSTOP of the actors, for good")
def actor_hangs(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_SPLIT))
    trial.moment(f"after {step} {count}")
    command = trial.start(ANOMARAY_STALL_SECONDS=STALL_S)
    if trial.reached(command, step, count):
        _stop_actors(trial, command)
    _must_survive(trial, command)
    trial.settle()


@fault("zombie-actor", "SIGSTOP of an actor, its driver killed and run again; then SIGCONT")
def zombie_actor(trial: Trial) -> None:
    step, count = trial.draw_step(sorted(PER_SPLIT))
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


def _stop_actors(trial: Trial, command: Command) -> list[int]:
    pids = [actor.pid for actor in command.actors()]
    for pid in pids:
        send(pid, signal.SIGSTOP)
    trial.struck(bool(pids))
    return pids


# Races


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
    rows = read_flags(trial.lake.table(), OTHER_DAY)
    wrong = difference(rows, trial.lake.expected(OTHER_DAY))
    if any(wrong):
        trial.broken("the other day: {} lost, {} doubled, {} different".format(*wrong))


# S3


def _requests_fail(name: str) -> Play:
    def play(trial: Trial) -> None:
        kind, where = KINDS[name]
        share = trial.chance.choice(SHARES)
        trial.moment(f"{share:.0%} of requests")
        rule = trial.rule(Rule(name, kind, share, where))
        for _ in range(2 if share < max(SHARES) else 1):
            if trial.finish(trial.start()) == 0:
                break
        trial.struck(rule.struck > 0)
        assert trial.proxy is not None
        trial.note(f"{rule.struck} of {trial.proxy.requests} requests")
        _lift(trial)
        trial.settle()

    return play


_S3_FAULTS = {
    "500": "requests answered with 500",
    "503": "requests answered with 503 SlowDown",
    "reset": "connections reset",
    "stall": "requests that wait some seconds",
    "truncated": "bodies that break off",
    "flipped": "bodies with a flipped bit",
    "lost-reply": "writes that took place, their reply lost",
    "409": "conditional writes answered with 409",
    "412": "conditional writes answered with 412",
}
for _name, _what in _S3_FAULTS.items():
    fault(f"s3-{_name}", _what, s3=True)(_requests_fail(_name))


@fault("listing-hides-record", "a listing hides a record of the journal from a restart", s3=True)
def listing_hides_record(trial: Trial) -> None:
    count = trial.chance.randrange(2, 12)
    trial.moment(f"restart after record {count}")
    commands: list[Command] = []
    trial.at_request("record", count, "after", lambda: commands[0].kill())
    commands.append(trial.start())
    commands[0].wait(300)
    _hide(trial, "/splits/", r"/splits/")
    trial.settle()


@fault("listing-hides-log", "a listing hides an entry of the table's log", s3=True)
def listing_hides_log(trial: Trial) -> None:
    trial.moment("the newest version, from another bundle's run")
    trial.finish(trial.start())
    trial.lake.promote(trial.lake.base.other)
    _hide(trial, "flags/_delta_log", r"flags/_delta_log/0*1\.json$")
    trial.settle()


@fault("listing-hides-input", "a listing hides a file of the day, until the next run", s3=True)
def listing_hides_input(trial: Trial) -> None:
    file = trial.chance.choice(trial.lake.files()).name
    trial.moment(file)
    # No one can know of it: for as long as it is hidden, the day is what is listed.
    trial.lake.remember(without=file)
    _hide(trial, f"flows/day={DAY}", rf"/{file}$")
    trial.finish(trial.start())
    _lift(trial)
    trial.settle()


def _hide(trial: Trial, prefix: str, pattern: str) -> None:
    """Listings of the prefix lack what matches, some times."""
    times = trial.chance.randrange(1, 4)
    trial.rule(
        Rule("hidden", hidden(pattern), where=lambda r: prefix in r.listed + "/", times=times)
    )
    trial.struck()


def _lift(trial: Trial) -> None:
    assert trial.proxy is not None
    trial.proxy.lift()


# The input


@fault("file-added", "a file is added to the day during a run")
def file_added(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.add_file(trial.chance))


@fault("file-changed", "a file of the day is written anew during a run")
def file_changed(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.change_file(trial.chance))


@fault("file-removed", "a file of the day is removed during a run")
def file_removed(trial: Trial) -> None:
    _input_changes(trial, lambda: trial.lake.remove_file(trial.chance))


def _input_changes(trial: Trial, change: Callable[[], str]) -> None:
    step, count = trial.draw_step(["plan", *sorted(PER_SPLIT), "commit"])
    command = trial.start()
    trial.struck(trial.reached(command, step, count))
    trial.moment(f"{change()} after {step} {count}")
    trial.finish(command)
    trial.settle()


# The machine


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


@fault("object-store-small", "Ray's object store has the 75 MiB that are its least")
def object_store_small(trial: Trial) -> None:
    trial.moment("from the start")
    trial.struck()
    code = trial.finish(trial.start(RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES=str(75 * 2**20)))
    if code != 0:
        trial.broken("the command failed")
    trial.settle()


_CLOCK = Path(__file__).with_name("clock.c")
_DAY_S = 24 * 60 * 60


def _needs_compiler() -> str | None:
    return None if shutil.which("cc") else "the clock is shifted by a library that needs a cc"


@fault("clock-off", "the clock is a day off, and right again after a kill", missing=_needs_compiler)
def clock_off(trial: Trial) -> None:
    seconds = trial.chance.choice([-_DAY_S, _DAY_S])
    step, count = trial.draw_step()
    trial.moment(f"{seconds:+,} s, until after {step} {count}")
    library = trial.folder / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, _CLOCK], check=True)
    command = trial.start(LD_PRELOAD=str(library), CLOCK_SHIFT_S=str(seconds))
    if trial.reached(command, step, count):
        trial.kill(command)
    trial.settle()


# Runs after runs


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
    trial.finish(trial.start())
    trial.lake.promote(trial.lake.base.other)
    earlier = trial.count(step)
    command = trial.start()
    if trial.reached(command, step, earlier + count):
        trial.kill(command)
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
    trial.finish(trial.start("vacuum", spec, "--hours", "1", "--no-dry-run"))
    trial.finish(command)
    removed = trial.start("vacuum", spec, "--hours", "0", "--no-dry-run")
    if trial.finish(removed) != 0 or "were removed" not in removed.errors:
        trial.broken("vacuum failed")
    trial.settle()
