"""One trial: a fault at a moment drawn from a seed, then what an operator would do, then the count.

A trial can be repeated: `Trial(base, seed, number, …)` draws the same fault and the same moment.
"""

import json
import random
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from deltalake.exceptions import TableNotFoundError

from cluster.lake.output.schemas import RUNS, SCORES
from jobs.report.document import REPORTS
from tests.conftest import S3Server
from tests.faults.lake import DAY, TABLES, Base, Lake, plain_environment, read_table
from tests.faults.processes import Command, until
from tests.faults.proxy import FaultProxy, Request, Rule, acting
from tests.faults.reader import Reader

ENGINES = ("local", "ray")
# From the first command to the last; a run that needs longer hangs.
LIMIT_S = 600.0
# For a file that is away. Longer than a fault keeps one away, shorter than a trial's patience.
LOOK_AGAIN_S = "20"
# How often an operator gives the same command again before giving up.
RESTARTS = 5
# Seconds in which a driver that goes on after the others were done has to end.
LATE_S = 90.0

# The steps of a run by the object that each of them writes below the output, in their order.
STEPS = {
    "plan": r"^_runs/[^/]+/plan\.json$",
    "attempt": r"^_runs/[^/]+/attempts/[^/]+$",
    "shard": r"^flags/day=[^/]+/part-[^/]+\.parquet$",
    "record": r"^_runs/[^/]+/tasks/[^/]+/[^/]+\.json$",
    "side commit": r"^quarantine/_delta_log/0*1\.json$",
    "commit": r"^flags/_delta_log/0*1\.json$",
    "run card": r"^reports/.*run_card\.(html|json)$",
    "result": r"^_runs/[^/]+/result\.json$",
}
# Of these there is one a task; of the others one a run.
PER_TASK = {"attempt", "shard", "record"}


@dataclass(frozen=True)
class Progress:
    """What the journals hold at one moment."""

    done: frozenset[str]  # run/task with a record
    attempts: frozenset[str]  # run/task-number of each attempt that was begun

    @property
    def in_flight(self) -> int:
        """Tasks that were begun and are not done."""
        return len({_task(a) for a in self.attempts} - self.done)

    @property
    def repeated(self) -> int:
        """Attempts beyond the first of a task."""
        return len(self.attempts) - len({_task(a) for a in self.attempts})

    def redone_since(self, earlier: "Progress") -> int:
        """Attempts at tasks that were done already."""
        return sum(_task(a) in earlier.done for a in self.attempts - earlier.attempts)


def _task(attempt: str) -> str:
    return attempt.rpartition("-")[0]


@dataclass
class Outcome:
    """What a trial found; `violations` is empty where every promise was kept."""

    seed: int
    trial: int
    fault: str
    store: str
    moment: str = ""
    struck: bool = False
    commands: int = 0
    engines: list[str] = field(default_factory=list)  # of the commands that score the day
    failures: int = 0  # commands that ended with another status than 0
    lost: int = 0
    doubled: int = 0
    different: int = 0
    partial_reads: int = 0
    unreadable: int = 0  # looks at the table that ended with an error
    hang: bool = False
    redone: int = 0  # tasks attempted again that were done before the kill
    repeated: int = 0  # attempts beyond the first of a task
    in_flight: int | None = None  # tasks begun and not done when the driver was killed
    commits: int = 0
    looks: int = 0
    states: int = 0  # different days that the reader saw
    notes: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)  # the last words of commands that failed
    broken: list[str] = field(default_factory=list)  # expectations of the fault that were not met
    seconds: float = 0.0

    @property
    def violations(self) -> list[str]:
        counts = {
            "lost": self.lost,
            "doubled": self.doubled,
            "different": self.different,
            "partial reads": self.partial_reads,
            "unreadable": self.unreadable,
            "done again": self.redone,
        }
        found = [f"{n} {name}" for name, n in counts.items() if n]
        if self.hang:
            found.append(f"hang over {LIMIT_S:.0f} s")
        if self.in_flight is not None and self.repeated > self.in_flight:
            found.append(f"{self.repeated} begun twice, {self.in_flight} in flight")
        return [*found, *self.broken]

    @property
    def verdict(self) -> str:
        if self.violations:
            return "VIOLATED: " + ", ".join(self.violations)
        return "ok" if self.struck else "ok (not struck)"

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "violations": self.violations, "verdict": self.verdict}


class Hang(Exception):
    """The commands of a trial took longer than their limit."""


class Trial:
    """What a fault works with: a lake, commands, moments, and the outcome that it fills."""

    def __init__(
        self,
        lake: Lake,
        reader: Reader,
        chance: random.Random,
        outcome: Outcome,
        folder: Path,
        on_ray: bool,
    ) -> None:
        self.lake, self.reader, self.chance, self.outcome = lake, reader, chance, outcome
        self.folder, self.on_ray = folder, on_ray
        self.proxy: FaultProxy | None = None
        self.commands: list[Command] = []
        self.killed_at: Progress | None = None
        self.in_flight = 0  # tasks that were begun and not done, at each kill
        self.tolerates_unreadable = False
        self.lost_files = False  # of a committed day, which is to be committed again
        self.restarts = RESTARTS
        self._deadline = time.monotonic() + LIMIT_S

    # Commands

    def start(self, *arguments: str, **environment: str) -> Command:
        """Start a command on this trial's lake; by default the one that scores the day, on an
        engine that is drawn: one may finish what the other has begun."""
        given = arguments
        if not given:
            settling = self.on_ray and self.commands
            engine = "ray" if self.on_ray and not settling else self.chance.choice(ENGINES)
            self.outcome.engines.append(engine)
            given = ("score", str(self.lake.spec), "--day", DAY, "--json", "--engine", engine)
        whole = {**plain_environment(), "ANOMARAY_LOOK_AGAIN_SECONDS": LOOK_AGAIN_S, **environment}
        if self.proxy:
            whole["AWS_ENDPOINT_URL"] = self.proxy.endpoint
        command = Command(given, whole, self.folder, f"command-{len(self.commands)}")
        self.commands.append(command)
        return command

    def finish(self, command: Command) -> int:
        """Wait for the command; its exit status. Raises `Hang` at the trial's limit."""
        code = command.wait(self._deadline - time.monotonic())
        if code is None:
            self._last_words(command)
            raise Hang
        if code != 0:
            self.outcome.failures += 1
            self._last_words(command)
        command.kill()  # what it may have left behind
        return code

    def finish_late(self, command: Command) -> None:
        """Wait for a driver whose run was finished by others: it may win, lose or fail."""
        if command.wait(LATE_S) is None:
            self.broken(f"a driver was still there {LATE_S:.0f} s after the day was committed")
        command.kill()

    def settle(self) -> None:
        """What an operator does: the same command, until it says that the day is committed."""
        for _ in range(self.restarts):
            if self.finish(self.start()) == 0:
                return
        self.broken(f"the command failed {self.restarts} times after the fault")

    def _last_words(self, command: Command) -> None:
        lines = [line for line in command.errors.splitlines() if line.strip()]
        self.outcome.messages.append((lines or ["(no message)"])[-1][:300])

    # Moments

    def draw_step(self, steps: list[str] | None = None) -> tuple[str, int]:
        """A step and how many of its objects are written before it is meant."""
        step = self.chance.choice(steps or list(STEPS))
        return step, self.chance.randrange(1, 11) if step in PER_TASK else 1

    def reached(self, command: Command, step: str, count: int) -> bool:
        """Wait until so many objects of the step are there; False where the command ends first."""
        until(
            lambda: command.code is not None or self.count(step) >= count,
            self._deadline - time.monotonic(),
        )
        return command.code is None

    def count(self, step: str) -> int:
        """Objects of the step in a local output folder."""
        return len(self.keys(step))

    def keys(self, step: str) -> list[str]:
        root, pattern = self.lake.output_folder, re.compile(STEPS[step])
        top = root / STEPS[step][1:].partition("/")[0]
        there = (p.relative_to(root).as_posix() for p in top.rglob("*"))
        return [key for key in there if pattern.match(key)]

    def at_request(self, step: str, count: int, side: str, action: Callable[[], None]) -> Rule:
        """Act when the request that writes the step's object is about to be done, or was."""
        pattern = re.compile(STEPS[step])
        return self.rule(
            Rule(
                "strike",
                acting(side, action),
                where=lambda r: _writes(r, pattern),
                skip=count - 1,
                times=1,
            )
        )

    def rule(self, rule: Rule) -> Rule:
        assert self.proxy is not None, "this fault is one of requests: it needs S3"
        self.proxy.rules.append(rule)
        return rule

    # What was seen

    def moment(self, text: str) -> None:
        self.outcome.moment = text

    def struck(self, when: bool = True) -> None:
        self.outcome.struck = self.outcome.struck or when

    def note(self, text: str) -> None:
        self.outcome.notes.append(text)

    def broken(self, text: str) -> None:
        self.outcome.broken.append(text)

    def progress(self) -> Progress:
        """What the journals hold now."""
        done, attempts = set(), set()
        for found in self.lake.output.child(RUNS).list():
            parts = found.key.split("/")
            if parts[1:2] == ["tasks"]:
                done.add(f"{parts[0]}/{parts[-1].removesuffix('.json')}")
            elif parts[1:2] == ["attempts"]:
                attempts.add(f"{parts[0]}/{parts[2]}")
        return Progress(frozenset(done), frozenset(attempts))

    def kill_other_champion(self, step: str, count: int) -> None:
        """Score the day, then again with another champion, and kill that at the step."""
        self.finish(self.start())
        self.lake.promote(self.lake.base.other)
        earlier = self.count(step)
        command = self.start()
        if self.reached(command, step, earlier + count):
            self.kill(command)

    def kill(self, command: Command) -> None:
        """SIGKILL of a driver with everything that it started, and what was done by then."""
        command.kill()
        self.killed_at = self.progress()
        self.in_flight += self.killed_at.in_flight
        self.struck()

    def committed_runs(self) -> list[str]:
        """The runs that committed the day, oldest first."""
        try:
            history = self.lake.table().history()
        except TableNotFoundError:
            return []
        return [entry["run_id"] for entry in reversed(history) if entry.get("day") == DAY]

    def judge(self) -> None:
        """Compare what is committed with what must be."""
        out, now = self.outcome, self.progress()
        self.reader.look_back()
        for name in TABLES:
            lost, doubled, different = self.lake.difference(name)
            out.lost, out.doubled = out.lost + lost, out.doubled + doubled
            out.different += different
            if lost or doubled or different:
                self.note(f"{name}: {lost} lost, {doubled} doubled, {different} different")
        out.partial_reads = self.reader.partial
        out.looks, out.states = self.reader.looks, self.reader.states
        out.unreadable = 0 if self.tolerates_unreadable else self.reader.failures.total()
        out.notes += [f"{n} × {error}" for error, n in self.reader.failures.items()]
        out.repeated = now.repeated
        if self.killed_at is not None:
            out.redone = now.redone_since(self.killed_at)
            out.in_flight = self.in_flight
        runs = self.committed_runs()
        out.commits = len(runs)
        if any(a == b for a, b in pairwise(runs)) and not self.lost_files:
            self.broken(f"run {runs[-1]} committed the day twice")
        if runs:
            self._judge_card(runs[-1])

    def _judge_card(self, run: str) -> None:
        """The run card of the day is there, of the run that committed it, with its counts."""
        store = self.lake.output.child(REPORTS)
        key = f"day={DAY}/run_card.json"
        if not store.exists(key):
            self.broken("the day has no run card")
            return
        card = json.loads(store.read(key))
        scored = len(read_table(self.lake.table(name=SCORES), SCORES, DAY))
        if (card["run"]["run_id"], card["run"]["status"]) != (run, "committed"):
            self.broken(f"the run card is of run {card['run']['run_id']}")
        elif card["books"]["scored"] != scored:
            self.broken(f"the run card counts {card['books']['scored']} rows, the table {scored}")

    def end(self) -> None:
        """Leave no process behind."""
        for command in self.commands:
            command.signal(signal.SIGKILL)
            command.kill()
        self.outcome.commands = len(self.commands)


def _writes(request: Request, pattern: re.Pattern[str]) -> bool:
    return request.method == "PUT" and bool(pattern.match(request.key.removeprefix("lake/out/")))


Play = Callable[[Trial], None]


def run_trial(
    base: Base, play: Play, outcome: Outcome, server: S3Server | None, on_ray: bool = False
) -> Outcome:
    """Play the fault on a fresh copy of the lake, and judge what came of it."""
    chance = random.Random(f"{outcome.seed}/{outcome.trial}")
    started = time.monotonic()
    with _trial(base, chance, outcome, server, on_ray) as trial:
        try:
            play(trial)
        except Hang:
            outcome.hang = True
        finally:
            trial.end()
        trial.judge()
    outcome.seconds = round(time.monotonic() - started, 1)
    return outcome


@contextmanager
def _trial(
    base: Base,
    chance: random.Random,
    outcome: Outcome,
    server: S3Server | None,
    on_ray: bool,
) -> Iterator[Trial]:
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        lake = Lake(base, folder, server)
        reader = stack.enter_context(Reader(lake))
        trial = Trial(lake, reader, chance, outcome, folder, on_ray)
        if server:
            name = f"{outcome.seed}/{outcome.trial}"
            trial.proxy = stack.enter_context(FaultProxy(server.endpoint, name))
        yield trial
