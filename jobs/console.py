"""What people see while a job runs: progress on a terminal, plain lines elsewhere, never on stdout
when a machine reads it."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Seconds between two progress lines where there is no terminal.
_LINE_EVERY_S = 5.0

out = Console()
err = Console(stderr=True)


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
    """One piece of long work, in rows or in epochs."""

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.note = ""
        self.started = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        self.note = note or self.note
        self.show()

    def show(self) -> None:
        """Called after every advance."""


class _Bar(Step):
    def __init__(self, name: str, total: int, progress: Progress) -> None:
        super().__init__(name, total)
        self.progress = progress
        self.task = progress.add_task(name, total=total, note="")

    def show(self) -> None:
        self.progress.update(self.task, completed=self.done, note=self.note)


class _Lines(Step):
    last = 0.0

    def show(self) -> None:
        now = time.monotonic()
        if self.done >= self.total or now - self.last >= _LINE_EVERY_S:
            self.last = now
            seconds = now - self.started
            rate = self.done / max(seconds, 1e-9)
            left = (self.total - self.done) / rate if rate > 0 else 0.0
            structlog.get_logger().info(
                self.name,
                done=self.done,
                of=self.total,
                per_second=round(rate),
                left_s=round(max(0.0, left)),
                **({"note": self.note} if self.note else {}),
            )


@contextmanager
def step(name: str, total: int) -> Iterator[Step]:
    """Show progress of `total` rows, splits or epochs while the block runs."""
    if not err.is_terminal:
        yield _Lines(name, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err, transient=False) as progress:
        yield _Bar(name, total, progress)


def say(text: str) -> None:
    """A line for people, on stderr: stdout is for results."""
    err.print(text, highlight=False)
