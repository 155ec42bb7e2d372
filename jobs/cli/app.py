"""The command line as one application of typer: the verbs of all rooms."""

import tomllib
from pathlib import Path
from typing import Annotated

import typer

from jobs.cli import cluster, learning, nights, upkeep
from jobs.cli.options import PROGRAM

ROOT = Path(__file__).parents[2]

app = typer.Typer(
    name=PROGRAM,
    help="Anomaray finds anomalies in a data lake.\n\n"
    "[b]init[/] writes a spec from your Parquet files, [b]train[/] trains a detector, "
    "[b]score[/] scores a day, and [b]flags[/] shows what was found. Every night, a scheduler runs "
    "[b]nightly[/].",
    no_args_is_help=True,
    add_completion=PROGRAM == "anomaray",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

for room in (learning, nights, upkeep, cluster):  # in the order of --help
    app.registered_commands += room.verbs.registered_commands


def _print_version(asked: bool) -> None:
    if asked:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        typer.echo(f"anomaray {project['version']}")
        raise typer.Exit


_HELP = "Print the version."


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help=_HELP)
    ] = False,
) -> None:
    pass
