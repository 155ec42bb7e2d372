"""One command, from its arguments to its exit status.

The command line chooses a spec and a day; the spec has the settings. Each verb imports torch and
Ray itself, so that `--help` answers at once.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from cluster.runtime import garbage, stopping
from jobs.cli.app import app
from jobs.terminal.console import configure_logs, err, keep_stdout, warn
from models.masking import describe, render_trace
from models.packages import describe_missing
from models.refusal import Refusal, may_pass

_TRACE, _UMASK = "ANOMARAY_TRACE", "ANOMARAY_UMASK"


@contextmanager
def report_errors() -> Iterator[None]:
    """Ends each error with one message and a status.

    2 for a refusal, for a path that is not there or not allowed, and for a missing package; 75
    (EX_TEMPFAIL of sysexits.h) for a failing store; 1 for any other error, which is a bug: its
    trace goes to a file.
    """
    try:
        yield
    except Refusal as error:
        warn("refused", error, "bold red")
        sys.exit(2)
    except OSError as error:
        if os.environ.get(_TRACE):
            raise
        if not may_pass(error):
            warn("refused", f"{_describe(error)}: check the path and who may use it", "bold red")
            sys.exit(2)
        trace = f"{_TRACE}=1 shows the trace"
        warn("failed", f"{_describe(error)}. Run the same command to resume ({trace}).", "bold red")
        sys.exit(75)
    except Exception as error:
        if missing := describe_missing(error):
            warn("refused", missing, "bold red")
            sys.exit(2)
        if _is_of_cluster(error):
            warn("failed", f"{describe(error)}. Run the same command to resume.", "bold red")
            sys.exit(75)
        trace = render_trace(error)
        where = "below" if os.environ.get(_TRACE) else f"in {_keep(trace)}"
        from models.detectors.plugins import find_culprit

        culprit = find_culprit(error)
        warn(
            "failed",
            f"{describe(error)}. This is a fault of {culprit or 'Anomaray'}: report it with the "
            f"trace {where}, which holds no value of a column",
            "bold red",
        )
        if os.environ.get(_TRACE):
            err.out(trace, highlight=False)
        sys.exit(1)


def _is_of_cluster(error: Exception) -> bool:
    """Whether Ray lost a worker, a node or an object: not an error of what ran there."""
    ray = sys.modules.get("ray.exceptions")
    return ray is not None and (
        isinstance(error, ray.RayError) and not isinstance(error, ray.RayTaskError)
    )


def _keep(trace: str) -> str:
    """Write the trace to a file of its own, which only its owner can read. Returns the path."""
    descriptor, path = tempfile.mkstemp(prefix="anomaray-", suffix=".trace")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(trace)
    return path


def _describe(error: OSError) -> str:
    """The error in one line. For an actor's error, the error that was raised in the actor."""
    from rich.text import Text

    raised = getattr(error, "cause", None) or error
    lines = Text.from_ansi(str(raised)).plain.splitlines()
    return f"{type(raised).__name__}: {': '.join(line.strip(' ↳') for line in lines if line)}"


def _find_umask() -> int:
    """What outputs on a local disk withhold from others: all, or the octal ANOMARAY_UMASK."""
    given = os.environ.get(_UMASK, "077")
    if not re.fullmatch("0?[0-7]{1,3}", given):
        raise Refusal(f"{_UMASK}: expected an octal number such as 027, found {given!r}")
    return int(given, 8)


def main(results: Callable[[TextIO], TextIO] | None = None) -> None:
    """Run the verb of the command line. `results` wraps the stream that the results go to."""
    garbage.delay()
    configure_logs()
    if results or "--json" in sys.argv:  # before Ray starts
        keep_stdout(results)
    try:
        with report_errors(), stopping.obey():
            os.umask(os.umask(0o077) | _find_umask())
            app()
    except SystemExit as end:  # typer ends every command with one
        engines = sys.modules.get("cluster.splits.opening")
        if engines is not None:
            engines.leave(end.code if isinstance(end.code, int) else 1)
        raise
