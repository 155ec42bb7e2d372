"""Running a verb on a remote cluster: submit it, show its log and progress, cancel it."""

import json
import re
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.runtime import shipping
from cluster.runtime.job_client import Environment, Job, JobClient, Submission
from cluster.runtime.stopping import handle_signals
from jobs.remote.command import prepare_command, read_variables, refuse_secrets
from jobs.remote.marked_lines import MARK
from jobs.terminal.console import Step, err, out, say, step
from jobs.terminal.printable import printable

# Seconds in which a second Ctrl-C cancels the job; the first one only stops following it.
_SECOND_S = 2.0
_INTERRUPTED = 130
# Most characters of a line of the log; a JSON line of progress has about 200.
_LINE = 4_000


def submit(
    address: str,
    arguments: Sequence[str],
    verbs: Iterable[str],
    environment: Environment,
    names: Iterable[str],
) -> int:
    """Start `python -m jobs ARGUMENTS` on the cluster, or attach to the job that runs it.

    Returns the job's exit status (see `cluster.runtime.job_client.Job`). Raises Refusal for what
    must not or cannot be sent, ConnectionError for a cluster that does not answer.
    """
    variables = read_variables(names)
    refuse_secrets(arguments, variables)
    command, files = prepare_command(arguments, verbs)
    jobs = JobClient(address)
    with TemporaryDirectory() as folder:
        lock = {shipping.LOCK: shipping.ROOT / shipping.LOCK} if environment == "lock" else {}
        shipping.stage(Path(folder), {**files, **lock})
        entrypoint = shlex.join(["python", "-m", "jobs.submitted", *command])
        work = Submission(command[0], entrypoint, Path(folder), environment, variables)
        job, new = jobs.submit(work)
    how = "submitted" if new else "attached to"
    return _follow(jobs, job.id, address, f"{how} {job.id} at {address}")


def attach(address: str, name: str) -> int:
    """Follow a job from the beginning of its log; returns its exit status."""
    return _follow(JobClient(address), name, address, f"attached to {name} at {address}")


def cancel(address: str, name: str) -> str:
    """End a job. Returns its last status."""
    status = JobClient(address).cancel(name).status
    say(f"{name}: {status}")
    return status


def _follow(jobs: JobClient, name: str, address: str, first: str) -> int:
    with handle_signals() as signals:  # from here on, a signal leaves the job
        try:
            say(first)
            with _LogView() as view:
                ended = jobs.follow(name, view.take, say)
        except KeyboardInterrupt:
            status = signals.status
            try:
                if status == _INTERRUPTED:
                    wait = f"within {_SECOND_S:.0f} s to cancel it"
                    say(f"{name} still runs; press Ctrl-C again {wait}")
                    time.sleep(_SECOND_S)  # for the second Ctrl-C
            except KeyboardInterrupt:
                say(f"{name}: {jobs.cancel(name).status}")
            else:
                say(f"follow it: submit --attach {name} --address {address}")
            return status
    _say_end(ended)
    return ended.exit_status


def _say_end(job: Job) -> None:
    ran = job.exit_code is not None or job.status != "FAILED"
    said = "" if ran else f": {printable(job.message, _LINE)}"
    say(f"{job.id}: {job.status}, exit status {job.exit_status}{said}")


class _LogView:
    """Writes a job's results to stdout and the rest of its log to stderr, with progress bars on a
    terminal. Control characters are escaped."""

    def __init__(self) -> None:
        self._rest = ""
        self._bar: Step | None = None
        self._bars = ExitStack()

    def __enter__(self) -> "_LogView":
        return self

    def __exit__(self, *_: object) -> None:
        if self._rest:
            self._line(self._rest)
        self._bars.close()

    def take(self, text: str) -> None:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def _line(self, line: str) -> None:
        if line.startswith(MARK):
            self._result(line.removeprefix(MARK))
        elif (told := _progress(line)) is not None and err.is_terminal:
            self._draw(told)
        else:
            sys.stderr.write(printable(line.expandtabs(), _LINE) + "\n")

    def _result(self, line: str) -> None:
        """Write a result whole, as cut JSON cannot be read. The bar is closed first: while it is
        shown, rich sends stdout to stderr's terminal."""
        self._bars.close()
        self._bar = None
        out.file.write(printable(line.expandtabs(), len(line.expandtabs())) + "\n")
        out.file.flush()

    def _draw(self, told: dict[str, Any]) -> None:
        name, total, done = printable(str(told["event"])), int(told["of"]), int(told["done"])
        if self._bar is None or (self._bar.name, self._bar.total) != (name, total):
            self._bars.close()
            self._bar = self._bars.enter_context(step(name, total))
        facts = {key: value for key, value in told.items() if isinstance(value, int | float)}
        note = printable(str(told.get("note", "")))
        self._bar.advance(max(0, done - self._bar.done), note, **facts)


def _progress(line: str) -> dict[str, Any] | None:
    """The progress in a line of `jobs.terminal.console`; None for any other line."""
    if not re.match(r'\{"', line):
        return None
    try:
        told = json.loads(line)
    except ValueError:
        return None
    known = isinstance(told, dict) and {"event", "done", "of"} <= told.keys()
    numbers = known and all(isinstance(told[key], int) for key in ("done", "of"))
    return told if numbers else None
