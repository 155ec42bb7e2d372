"""Quality of the detectors on public sets: `python -m tests.quality run`, then `report`."""

from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.public_sets import DATA
from tests.quality import report, results
from tests.quality.measure import Result, measure
from tests.quality.protocol import Protocol
from tests.quality.registry import PROTOCOLS

app = typer.Typer(
    name="python -m tests.quality",
    help="Measures the catalogue on public sets, under the protocols of published figures.\n\n"
    "[b]run[/] adds what is missing to the results; [b]report[/] makes docs/quality.md.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Option(help="Where the results are.")]
_FOLDER = Path("demo/quality")
# Seconds of the processor after which a training is given up: on most sets they take a tenth.
_BUDGET = 180.0


@app.command()
def run(
    folder: Folder = _FOLDER,
    sets: Annotated[
        list[str], typer.Option("--set", help="A name or pattern; repeatable; all by default.")
    ] = [],  # noqa: B006
    detector: Annotated[
        list[str], typer.Option(help="Repeatable; by default those that suit the set.")
    ] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0.")] = 5,
    budget: Annotated[float, typer.Option(help="Seconds of the processor to train.")] = _BUDGET,
    data: Annotated[Path, typer.Option(help="Where the sets are.")] = DATA,
) -> None:
    """Run every detector on every set; what has a result is not run again."""
    console = Console(stderr=True)
    path = folder / "results.jsonl"
    there = results.read(path)
    for protocol, seed in (
        (p, s) for p in _chosen(sets or ["*"], data, console) for s in range(seeds)
    ):
        wanted = detector or protocol.detectors
        missing = [name for name in wanted if (protocol.name, name, seed) not in there]
        if not missing:
            continue
        trial = protocol.trial(seed, data)
        for name in missing:
            result = measure(trial, protocol.name, name, seed, budget=budget)
            results.append(path, result)
            console.print(line(result), highlight=False, markup=False)


@app.command(name="report")
def report_(
    folder: Folder = _FOLDER,
    page: Annotated[Path, typer.Option(help="HTML and CSV go beside it.")] = Path(
        "docs/quality.md"
    ),
) -> None:
    """Make the page, the heat map and the CSV from the results."""
    found = results.read(folder / "results.jsonl")
    if not any(result.auroc is not None for result in found.values()):
        raise typer.BadParameter(f"no results in {folder}: run first")
    for written in report.write([found[key] for key in sorted(found)], page):
        typer.echo(f"wrote {written}")


def line(result: Result) -> str:
    """A result for the terminal."""
    head = f"{result.set} {result.detector} seed {result.seed}:"
    if result.refused or result.auroc is None:
        return f"{head} {result.refused or 'one class only'}"
    return (
        f"{head} AUROC {result.auroc:.4f}, {result.train_seconds:.1f} s to train, "
        f"{result.rows_per_second:,.0f} rows/s"
    )


def _chosen(patterns: Iterable[str], data: Path, console: Console) -> list[Protocol]:
    """The protocols whose set is there, in the order of the registry."""
    chosen = []
    for protocol in PROTOCOLS.values():
        if not any(fnmatch(protocol.name, pattern) for pattern in patterns):
            continue
        if protocol.available(data):
            chosen.append(protocol)
        else:
            console.print(f"skipped {protocol.name}: no {data / protocol.source}", style="yellow")
    if not chosen:
        raise typer.BadParameter(f"no set of {', '.join(patterns)} is there")
    return chosen


if __name__ == "__main__":
    app()
