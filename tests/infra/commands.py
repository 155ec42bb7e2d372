"""Command lines of infra/, parsed as `python -m jobs` parses them; nothing runs."""

from collections.abc import Sequence

from typer.main import get_command

from jobs.cli.app import app


def check_verb(words: Sequence[str]) -> None:
    """Parse a verb with its arguments: TyperException says what the command line would refuse."""
    group = get_command(app)
    # Everything that the command line checks before its function is called, which is not.
    with group.make_context("jobs", list(words)) as context:
        name, command, rest = group.resolve_command(context, list(words))  # type: ignore[attr-defined]
        command.make_context(name, rest, parent=context).close()
