"""The verbs of the command line, run in this process, with all that they say."""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from jobs.cli.app import app
from jobs.cli.command import report_errors
from jobs.terminal.console import configure_logs


@dataclass(frozen=True)
class Said:
    """How a verb ended."""

    verb: str
    code: int
    out: str
    err: str

    @property
    def fault(self) -> str | None:
        """What no input may cause: a trace, or a status other than success, a gate or a refusal."""
        if "Traceback (most recent call last)" in self.err + self.out:
            return "trace"
        if self.code not in (0, 1, 2) or "fault of Anomaray" in self.err:
            return f"status {self.code}"
        if self.code == 2 and "refused:" not in self.err:
            return "a refusal without a message"
        return None

    @property
    def line(self) -> str:
        """The message of a refusal or a fault, in one line."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        told = [i for i, line in enumerate(lines) if line.startswith(("refused:", "failed:"))]
        return " ".join(lines[told[-1] :] if told else lines[-1:])


def run(verb: str, *arguments: Any) -> Said:
    """Run one verb as `python -m jobs` does, its errors reported in the same way."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        configure_logs()
        try:
            with report_errors():
                app([verb, *map(str, arguments)], prog_name="python -m jobs")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Said(verb, code, out.getvalue(), err.getvalue())
