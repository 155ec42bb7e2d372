"""The scoring benchmark: `python -m tests.bench run`, then `report`."""

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tests.bench import machine, prepare, report, serve
from tests.bench.contenders import ALL, Contender
from tests.bench.results import Results
from tests.bench.rounds import Rounds
from tests.bench.workloads import BY_NAME, W4, Workload

app = typer.Typer(
    name="python -m tests.bench",
    help="Measures Anomaray beside other ways to score the same lake with the same model.\n\n"
    "[b]run[/] writes the lakes, trains once, and runs all contenders in turn; [b]report[/] "
    "makes the tables and the charts of docs/performance.md.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_RESULTS = "results"
_FOLDER = Path("demo/bench")

Folder = Annotated[Path, typer.Option(help="Where lakes, models and results go.")]


@app.command()
def run(
    folder: Folder = _FOLDER,
    workload: Annotated[
        list[str], typer.Option(help="W1, W2, W3, W4 (all its sizes), W4-16M, W5; repeatable.")
    ] = ["W1", "W2"],  # noqa: B006
    contender: Annotated[
        list[str], typer.Option(help=f"Of {', '.join(ALL)}; repeatable; all by default.")
    ] = [],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=0, help="0 counts the warm-up itself.")] = 3,
    rows_scale: Annotated[float, typer.Option(min=1e-4, help="Multiplies all rows.")] = 1.0,
    s3: Annotated[bool, typer.Option(help="Also read the same lakes from S3 (rclone).")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds after which a run is ended.")] = 3600,
    name: Annotated[str, typer.Option(help="Of the result: FOLDER/results/NAME.json.")] = "bench",
) -> None:
    """Measure contenders on workloads, interleaved; medians on the terminal, all figures in JSON.

    One row again: --workload W1 --contender daft_udf --contender anomaray
    """
    folder = folder.absolute()
    chosen = [w.scaled(rows_scale) for w in _workloads(workload)]
    contenders, skipped = _contenders(contender)
    results = Results(
        machine=machine.describe(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        command=_command(sys.argv[1:]),
        rounds=max(rounds, 1),
        skipped=skipped,
    )
    path, console = folder / _RESULTS / f"{name}.json", Console()
    for one, why in skipped.items():
        console.print(f"skipped {one}: {why}", style="yellow", markup=False)
    with ExitStack() as stack:
        server = stack.enter_context(serve.serving(folder)) if s3 else None
        for day in chosen:
            for place in ("local", "s3") if server else ("local",):
                bucket = f"s3://{prepare.LAKES}" if place == "s3" else None
                case = prepare.case(folder, day, bucket)
                environment = dict(_QUIET)
                able = contenders
                if server and bucket:
                    environment |= server.environment
                    able = [c for c in contenders if c.s3]
                    results.ceiling = serve.ceiling(server, case.lake)
                measured = Rounds(case, able, folder / "out", environment, timeout, console.print)
                measured.run(rounds)
                results.lines += measured.lines.values()
                results.write(path)
                _print(results, case.workload.name, place, console)
    console.print(f"wrote {path}", highlight=False)
    if any(line.refused for line in results.lines):
        raise typer.Exit(1)


@app.command(name="report")
def report_(
    result: Annotated[
        list[Path] | None, typer.Argument(help="JSON files of `run`; all of the folder by default.")
    ] = None,
    folder: Folder = _FOLDER,
    page: Annotated[Path, typer.Option(help="The page; charts go beside it.")] = Path(
        "docs/performance.md"
    ),
) -> None:
    """Make the page and the charts from measured results."""
    files = result or sorted((folder / _RESULTS).glob("*.json"), key=lambda p: p.stat().st_mtime)
    if not files:
        raise typer.BadParameter(f"no results in {folder / _RESULTS}: run first")
    for path in report.write(report.merged([Results.read(file) for file in files]), page):
        typer.echo(f"wrote {path}")


def _command(arguments: list[str]) -> str:
    """The command as others would give it: where the lakes lie is nobody's business."""
    kept = list(arguments)
    if "--folder" in kept:
        place = kept.index("--folder")
        del kept[place : place + 2]
    return shlex.join(["python", "-m", "tests.bench", *kept])


# One thread in each process of a contender that has a process a core; Anomaray plans for itself.
_QUIET = {"PYTHONWARNINGS": "ignore", "RAY_DEDUP_LOGS": "1"}


def _workloads(names: Iterable[str]) -> list[Workload]:
    known = {**{name: (one,) for name, one in BY_NAME.items()}, "W4": W4}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"no workload {unknown[0]}; there are {', '.join(known)}")
    return list(dict.fromkeys(one for name in names for one in known[name]))


def _contenders(names: list[str]) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    unknown = [name for name in names if name not in ALL]
    if unknown:
        raise typer.BadParameter(f"no contender {unknown[0]}; there are {', '.join(ALL)}")
    wanted = [ALL[name] for name in names or ALL]
    skipped = {c.name: c.missing for c in wanted if c.missing}
    able = [c for c in wanted if c.name not in skipped]
    if not able:
        raise typer.BadParameter(f"no contender can run here: {skipped}")
    return able, skipped


def _print(results: Results, workload: str, place: str, console: Console) -> None:
    console.print(report.terminal(results, workload, place))
    for note in report.notes(results, workload, place):
        console.print(f"* {note}", markup=False, highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    app()
