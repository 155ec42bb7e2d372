"""The command line as one application of typer: the verbs of all rooms."""

import typer

from jobs.cli import cluster, learning, nights, upkeep

app = typer.Typer(
    name="python -m jobs",
    help="Anomaray finds anomalies in a data lake.\n\n"
    "[b]init[/] writes a spec from your Parquet files, [b]train[/] trains a detector, "
    "[b]score[/] scores a day, and [b]flags[/] shows what was found. Every night, a scheduler runs "
    "[b]nightly[/].",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

for room in (learning, nights, upkeep, cluster):  # in the order of --help
    app.registered_commands += room.verbs.registered_commands
