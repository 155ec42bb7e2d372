"""The command line, `python -m jobs VERB`: it chooses a spec and a day; the spec configures.

Torch and Ray are imported by the verb that needs them: `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Literal, Optional, TextIO

import typer

from jobs.cli import learning, nights, upkeep
from jobs.terminal.console import configure_logs, err, keep_stdout, warn
from models.refusal import Refusal

app = typer.Typer(
    name="python -m jobs",
    help="Anomaray finds anomalies in a data lake.\n\n"
    "A night is: [b]train[/] a detector, [b]score[/] a day, read its [b]flags[/]. "
    "Start with [b]init URI[/], which looks at your Parquet and writes a spec.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_TRACE = "ANOMARAY_TRACE"

for room in (learning, nights, upkeep):  # in the order of --help
    app.registered_commands += room.verbs.registered_commands


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
def submit(
    arguments: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            help="A verb and its arguments, as they would be run here.", metavar="VERB …"
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="The cluster's dashboard.", metavar="http://HEAD:8265")
    ] = "http://127.0.0.1:8265",
    environment: Annotated[
        Literal["image", "lock"],
        typer.Option(
            help="`image`: every node has requirements.lock, as `infra/image` does; that is "
            "checked. `lock`: every node copies its own environment (2.5 GB and 20 s with nothing "
            "missing) and installs there, with pip, what it lacks of the lock; where that is torch,"
            " it is PyPI's build for CUDA. Later jobs find it there. Needs PyPI, pip, room in /tmp."
        ),
    ] = "image",
    env: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Name of a variable to send along; no secret: others can read it."),
    ] = None,
    attach: Annotated[Optional[str], typer.Option(help="Follow the job of this id.")] = None,  # noqa: UP045
    cancel: Annotated[Optional[str], typer.Option(help="End the job of this id.")] = None,  # noqa: UP045
) -> None:
    """Run a verb on a cluster and see it through; submitted again, attach to where it is.

    Its stdout is the verb's own, so `--json` can be read by machines; the rest
    of its log goes to stderr. The exit status is the verb's; 143 if the job was
    ended, 130 after Ctrl-C; 75 if the head was gone for two minutes, or the
    cluster failed the job: then the same command goes on.
    """
    if [bool(arguments), attach is not None, cancel is not None].count(True) != 1:
        raise Refusal("expected one of: a verb and its arguments, --attach ID, --cancel ID")
    from jobs.remote import submit as job

    if attach is not None:
        raise typer.Exit(job.attach(address, attach))
    if cancel is not None:
        raise typer.Exit(job.cancel(address, cancel))
    verbs = [command.callback.__name__ for command in app.registered_commands if command.callback]
    raise typer.Exit(job.submit(address, arguments or [], verbs, environment, env or ()))


@contextmanager
def _refusals() -> Iterator[None]:
    """A refusal is one message and exit code 2, a store that fails one and 75 (EX_TEMPFAIL of
    sysexits.h); everything else is a fault and keeps its trace."""
    try:
        yield
    except Refusal as error:
        warn("refused", error, "bold red")
        sys.exit(2)
    except OSError as error:
        if os.environ.get(_TRACE):
            raise
        trace = f"{_TRACE}=1 shows the trace"
        warn("failed", f"{_cause(error)}. Run the same command to resume ({trace}).", "bold red")
        sys.exit(75)
    except KeyboardInterrupt:
        err.print("Interrupted. Run the same command to resume.")
        sys.exit(130)


def _cause(error: OSError) -> str:
    """The error in one line; of an actor's, what was raised there."""
    from rich.text import Text

    raised = getattr(error, "cause", None) or error
    lines = Text.from_ansi(str(raised)).plain.splitlines()
    return f"{type(raised).__name__}: {': '.join(line.strip(' ↳') for line in lines if line)}"


def main(results: Callable[[TextIO], TextIO] | None = None) -> None:
    """Run the verb of the command line; `results` wraps the stream that its results go to."""
    configure_logs()
    if results or "--json" in sys.argv:  # before a verb starts Ray, and in this process alone
        keep_stdout(results)
    code = 0
    with _refusals():
        try:
            app()
        except SystemExit as end:  # typer ends every command with one
            if not _leaves():
                raise
            code = end.code if isinstance(end.code, int) else 1
    if _leaves():
        sys.modules["cluster.runtime.session"].leave(code)


def _leaves() -> bool:
    session = sys.modules.get("cluster.runtime.session")
    return session is not None and session.is_left_running()


if __name__ == "__main__":
    main()
