"""What people see while a job runs: progress on a terminal, plain lines elsewhere, never on stdout
when a machine reads it."""

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TextIO

import structlog
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jobs.terminal.printable import escape_message

Fact = int | float | str
Live = Callable[[], Mapping[str, Fact]]

# Seconds between two progress lines where there is no terminal.
_LINE_EVERY_S = 5.0
# The recent rate is that of this many seconds: splits end in bursts, one for each actor.
_RECENT_S = 30.0
_MARK_EVERY_S = 0.5
# Facts that must be asked for are asked for this often at most: a terminal is drawn more often.
_ASK_EVERY_S = 0.2

# Of fewer than this, epochs or files, a rate says nothing on a terminal.
_FEW = 1_000

# How facts read on a terminal; lines for machines carry every fact under its own name.
_PHRASES = (
    "{flags:,} flags",
    "{quarantined:,} quarantined",
    "{actors} of {actors_planned} actors",
    "slowest: {slowest} {slowest_share:.0%}",
)

out = Console()
err = Console(stderr=True)


def keep_stdout(wrapped: Callable[[TextIO], TextIO] | None = None) -> None:
    """From now on stdout is `out`'s alone, maybe `wrapped`; whatever else is printed in this
    process, or by one that it starts, goes to stderr.

    Ray prints there, from a thread of its own, that a node died or that the cluster grows: in the
    middle of the JSON that a program reads.
    """
    sys.stdout.flush()
    # By lines, since a process that leaves its Ray behind ends without closing its files.
    kept = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    out.file = wrapped(kept) if wrapped else kept
    os.dup2(2, 1)


def configure_logs() -> None:
    """Structured log lines on stderr: coloured on a terminal, JSON (with control characters
    escaped) elsewhere."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


class Step:
    """One piece of long work, in rows or in epochs.

    Facts (`flags=12`) go out with it: reported at an advance, or asked for through `live`, also
    from the thread that shows them.
    """

    def __init__(self, name: str, total: int, live: Live | None = None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.note = ""
        self.started = time.monotonic()
        self._marks = deque([(self.started, 0)])  # when, and how much was done by then
        self._reported: dict[str, Fact] = {}
        self._live, self._asked = live, -_ASK_EVERY_S
        self._answered: dict[str, Fact] = {}

    def advance(self, amount: int = 1, note: str = "", **facts: Fact) -> None:
        """Count `amount` as done; a note, or a fact, stays until the next of its name."""
        self._ask()
        self.done += amount
        self.note = note or self.note
        self._reported = self._reported | facts
        self._mark(time.monotonic())
        self.show()

    def show(self) -> None:
        """Called after every advance."""

    @property
    def rate(self) -> float:
        """A second, since the step began."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def recent_rate(self) -> float:
        """A second, over the last half minute."""
        now, marks = time.monotonic(), tuple(self._marks)
        before = [mark for mark in marks if now - mark[0] >= _RECENT_S]
        since, done = before[-1] if before else marks[0]
        return (self.done - done) / max(now - since, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the recent rate; None before anything is done."""
        rate = self.recent_rate or self.rate
        return max(0.0, (self.total - self.done) / rate) if rate else None

    @property
    def facts(self) -> dict[str, Fact]:
        """Those reported, and those asked for."""
        self._ask()
        return self._reported | self._answered

    def _ask(self) -> None:
        """While there is work: when all is done, the actors are gone, and that is no news."""
        now = time.monotonic()
        if self._live and self.done < self.total and now - self._asked >= _ASK_EVERY_S:
            self._asked = now
            self._answered = dict(self._live())

    def _mark(self, now: float) -> None:
        if now - self._marks[-1][0] >= _MARK_EVERY_S:
            self._marks.append((now, self.done))
            while len(self._marks) > 1 and now - self._marks[1][0] >= _RECENT_S:
                self._marks.popleft()


class _Bar(Step):
    """A bar on a terminal."""

    def __init__(self, name: str, total: int, live: Live | None, display: "_Display") -> None:
        super().__init__(name, total, live)
        self.display = display
        self.task = display.add_task(name, total=total, step=self)

    def show(self) -> None:
        self.display.update(self.task, completed=self.done)

    def words(self) -> str:
        """What the line under the bar says."""
        facts, said = self.facts, []
        if self.total >= _FEW:
            said.append(f"{self.recent_rate:,.0f}/s ({self.rate:,.0f}/s overall)")
        for phrase in _PHRASES:
            with suppress(KeyError):  # not known of this step
                said.append(phrase.format(**facts))
        return " · ".join([*said, *filter(None, [self.note])])


class _Display(Progress):
    """Rich's bar, and under it a line of what else is known."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if words := task.fields["step"].words():
                yield Text(f"  {words}", style="dim")


class _Lines(Step):
    """One JSON line every few seconds, also when nothing is answered, and one at the end."""

    def __init__(self, name: str, total: int, live: Live | None) -> None:
        super().__init__(name, total, live)
        self._over = threading.Event()
        context = copy_context()  # what the log of this thread carries, such as the day
        self._ticking = threading.Thread(target=context.run, args=(self._tick,), daemon=True)
        self._ticking.start()

    def close(self) -> None:
        self._over.set()
        self._ticking.join()
        self._say()

    def _tick(self) -> None:
        while not self._over.wait(_LINE_EVERY_S):
            self._say()

    def _say(self) -> None:
        left = self.left_s
        structlog.get_logger().info(
            self.name,
            done=self.done,
            of=self.total,
            per_second=_rounded(self.rate),
            recent_per_second=_rounded(self.recent_rate),
            left_s=None if left is None else round(left),
            **self.facts,
            **({"note": self.note} if self.note else {}),
        )


def _rounded(rate: float) -> float:
    """Rows come by the thousand a second, epochs by one in a few seconds."""
    return round(rate) if rate >= 10 else round(rate, 2)


@contextmanager
def step(name: str, total: int, live: Live | None = None) -> Iterator[Step]:
    """Show progress of `total` rows, splits or epochs while the block runs.

    `live` is asked, a few times a second at most, for facts that no advance reports.
    """
    if not err.is_terminal:
        lines = _Lines(name, total, live)
        try:
            yield lines
        finally:
            lines.close()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with _Display(*columns, console=err, transient=False) as display:
        yield _Bar(name, total, live, display)


def say(text: RenderableType) -> None:
    """A line, or a table, for people, on stderr: stdout is for results."""
    err.print(text, highlight=False)


def warn(label: str, message: object, colour: str = "yellow") -> None:
    """`label: message` on stderr. Both may quote untrusted names."""
    text = f"[{colour}]{escape_message(label)}[/]: {escape_message(str(message))}"
    err.print(text, highlight=False, soft_wrap=True)
