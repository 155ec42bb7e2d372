"""Progress and messages of a running job: bars on a terminal, JSON lines elsewhere.

All of it goes to stderr; stdout is for results.
"""

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

# Seconds between two progress lines without a terminal.
_LINE_EVERY_S = 30.0
# Seconds of the recent rate: splits end in bursts, one for each actor.
_RECENT_S = 30.0
_MARK_EVERY_S = 0.5
# Least seconds between two calls of `live`: a terminal is drawn more often.
_ASK_EVERY_S = 0.2

# A rate is shown for at least this many: it means nothing for a few epochs or files.
_FEW = 1_000

# The facts that a terminal shows. Log lines have every fact under its own name.
_PHRASES = (
    "{tasks:,} of {tasks_planned:,} tasks",
    "{flags:,} flags",
    "{quarantined:,} quarantined",
    "{actors} of {actors_planned} actors",
    "slowest: {slowest} {slowest_share:.0%}",
)

out = Console()
err = Console(stderr=True)


def keep_stdout(wrapped: Callable[[TextIO], TextIO] | None = None) -> None:
    """Reserve stdout for `out`, which may be `wrapped`. All other output of this process and of its
    children goes to stderr.

    A thread of Ray prints to stdout when a node dies or the cluster grows, in the middle of the
    JSON that a program reads.
    """
    sys.stdout.flush()
    # Line buffered: a process that leaves its Ray running ends without closing its files.
    kept = os.fdopen(os.dup(1), "w", buffering=1, encoding=sys.stdout.encoding)
    out.file = wrapped(kept) if wrapped else kept
    os.dup2(2, 1)


def configure_logs() -> None:
    """Set up structured log lines on stderr: coloured on a terminal, otherwise JSON with control
    characters escaped."""
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
    """The progress of one piece of long work, in rows, splits or epochs.

    It shows facts (`flags=12`), which are passed to `advance` or returned by `live`. The thread
    that shows the progress may call `live` too.
    """

    def __init__(self, name: str, total: int, live: Live | None = None) -> None:
        self.name, self.total, self.done = name, total, 0
        self.note = ""
        self.started = time.monotonic()
        self._marks = deque([(self.started, 0)])  # (time, amount done)
        self._reported: dict[str, Fact] = {}
        self._live, self._asked = live, -_ASK_EVERY_S
        self._answered: dict[str, Fact] = {}

    def advance(self, amount: int = 1, note: str = "", **facts: Fact) -> None:
        """Count `amount` as done. A note or a fact stays until the next of its name."""
        self._ask()
        self.done += amount
        self.note = note or self.note
        self._reported = self._reported | facts
        self._mark(time.monotonic())
        self.show()

    def show(self) -> None:
        """Update the display; called after every advance."""

    @property
    def rate(self) -> float:
        """Amount per second since the start of the step."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def recent_rate(self) -> float:
        """Amount per second in the last half minute."""
        now, marks = time.monotonic(), tuple(self._marks)
        before = [mark for mark in marks if now - mark[0] >= _RECENT_S]
        since, done = before[-1] if before else marks[0]
        return (self.done - done) / max(now - since, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds left at the recent rate; None before anything is done."""
        rate = self.recent_rate or self.rate
        return max(0.0, (self.total - self.done) / rate) if rate else None

    @property
    def facts(self) -> dict[str, Fact]:
        """The facts of `advance` and of `live`."""
        self._ask()
        return self._reported | self._answered

    def _ask(self) -> None:
        """Call `live`, but not after the end, when the actors are gone."""
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

    def describe(self) -> str:
        """The line under the bar."""
        facts, words = self.facts, []
        if self.total >= _FEW:
            words.append(f"{self.recent_rate:,.0f}/s ({self.rate:,.0f}/s overall)")
        for phrase in _PHRASES:
            with suppress(KeyError):  # this step has no such fact
                words.append(phrase.format(**facts))
        return " · ".join([*words, *filter(None, [self.note])])


class _Display(Progress):
    """Rich's bar, and a line of facts under it."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for task in self.tasks:
            if words := task.fields["step"].describe():
                yield Text(f"  {words}", style="dim")


class _Lines(Step):
    """A JSON line every few seconds, even without progress, and one at the end."""

    def __init__(self, name: str, total: int, live: Live | None) -> None:
        super().__init__(name, total, live)
        self._over = threading.Event()
        context = copy_context()  # with the fields of this thread's log, such as the day
        self._thread = threading.Thread(target=context.run, args=(self._print_lines,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._print_line()

    def _print_lines(self) -> None:
        while not self._over.wait(_LINE_EVERY_S):
            self._print_line()

    def _print_line(self) -> None:
        left = self.left_s
        structlog.get_logger().info(
            self.name,
            done=self.done,
            of=self.total,
            per_second=_round(self.rate),
            recent_per_second=_round(self.recent_rate),
            left_s=None if left is None else round(left),
            **self.facts,
            **({"note": self.note} if self.note else {}),
        )


def _round(rate: float) -> float:
    """Rows have rates of thousands per second, epochs of less than one."""
    return round(rate) if rate >= 10 else round(rate, 2)


@contextmanager
def step(name: str, total: int, live: Live | None = None) -> Iterator[Step]:
    """Show progress of `total` rows, splits or epochs while the block runs.

    `live` returns further facts. It is called a few times a second at most.
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
    """Print a line or a table for people on stderr; where no terminal is, a line stays one."""
    err.print(text, highlight=False, soft_wrap=isinstance(text, str) and not err.is_terminal)


def warn(label: str, message: object, colour: str = "yellow") -> None:
    """`label: message` on stderr. Both may quote untrusted names."""
    text = f"[{colour}]{escape_message(label)}[/]: {escape_message(str(message))}"
    err.print(text, highlight=False, soft_wrap=True)
