"""The results as tables for the terminal and as `docs/performance.md` with its charts."""

from pathlib import Path
from typing import Any

from rich.table import Table

from tests.bench import bars, chart, stages
from tests.bench.contenders import ALL
from tests.bench.results import MIB, Line, Results
from tests.bench.workloads import ANOMALIES, BY_NAME

_COLUMNS = (
    *("contender", "wall s", "job s", "rows/s", "CPU s", "peak MiB"),
    *("speed / limit", "speed / Anomaray"),
)
_ABOUT = {
    "W1": "network flows, 8 million rows in 32 files",
    "W2": "the same, 200 thousand rows in 4 files: start-up",
    "W3": "the same, 4 million rows through a wide autoencoder: compute-bound. Of 1 million, Ray's "
    "start was a third of the time, and said more than the arithmetic",
    "W5": "W1 cut into 2,000 small files",
}


def rows(results: Results, workload: str, place: str) -> list[list[str]]:
    """A case's table, fastest first, without its header."""
    lines = [x for x in results.lines if (x.workload, x.place) == (workload, place)]
    limit = results.find("limit", workload, place) or results.find("limit_torch", workload, place)
    ours = results.find("anomaray", workload, place)
    measured = sorted((x for x in lines if x.runs), key=lambda x: x.wall)
    table = [_row(line, limit, ours) for line in measured]
    refused = [x for x in lines if not x.runs]
    return table + [[title(x), *["–"] * (len(_COLUMNS) - 1)] for x in refused]


def title(line: Line) -> str:
    """The contender's name for people, with a star where there is a note."""
    return ALL[line.contender].title + ("*" if line.note or line.refused else "")


def _row(line: Line, limit: Line | None, ours: Line | None) -> list[str]:
    scores = line.contender != "floor"
    return [
        title(line),
        f"{line.wall:.1f}",
        f"{line.median('job_seconds'):.1f}",
        f"{line.rate:,.0f}" if scores else "–",
        f"{line.median('cpu_seconds'):.1f}",
        f"{line.median('peak_private_bytes') / MIB:,.0f}",
        *(f"{line.rate / x.rate:.2f}" if x and scores else "–" for x in (limit, ours)),
    ]


def notes(results: Results, workload: str, place: str) -> list[str]:
    """Why a contender has no figure, and what is to be known of a figure."""
    return [
        f"{ALL[x.contender].title}: {x.refused or x.note}"
        for x in results.lines
        if (x.workload, x.place) == (workload, place) and (x.refused or x.note)
    ]


def terminal(results: Results, workload: str, place: str) -> Table:
    table = Table(title=f"{workload} {place}, medians of {results.rounds}", box=None)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "contender" else "right")
    for row in rows(results, workload, place):
        table.add_row(*row)
    return table


def merged(several: list[Results]) -> Results:
    """One result of many; a later line of a contender and a case replaces an earlier one. The
    machine must be the same: ratios of two machines say nothing."""
    first = several[0]
    lines: dict[tuple[str, str, str], Line] = {}
    skipped: dict[str, str] = {}
    for one in several:
        for name in ("cpu", "cores", "memory_gib"):
            if one.machine[name] != first.machine[name]:
                raise SystemExit(
                    f"expected results of one machine, found {name} {first.machine[name]} and "
                    f"{one.machine[name]}: report them apart"
                )
        lines |= {(x.contender, x.workload, x.place): x for x in one.lines}
        skipped |= one.skipped
    last = several[-1]
    ceiling = next((one.ceiling for one in reversed(several) if one.ceiling), None)
    command = "\n".join(dict.fromkeys(one.command for one in several))
    measured = {contender for contender, _, _ in lines}
    return Results(
        last.machine,
        last.started,
        command,
        last.rounds,
        list(lines.values()),
        {name: why for name, why in skipped.items() if name not in measured},
        ceiling,
    )


def write(results: Results, page: Path) -> list[Path]:
    """Write the page and, beside it, one chart a case; their paths."""
    page.parent.mkdir(parents=True, exist_ok=True)
    written = [page]
    sections: list[str] = [_head(results), _bars(results)]
    for workload, place in results.cases:
        if not any((x.workload, x.place) == (workload, place) and x.runs for x in results.lines):
            continue
        drawing = page.with_name(f"{page.stem}-{workload}-{place}.svg".lower())
        drawing.write_text(_chart(results, workload, place))
        written.append(drawing)
        sections.append(_section(results, workload, place, drawing.name))
    sections += [stages.section(results), _growth(results), _s3(results), _how(results)]
    page.write_text("\n\n".join(section for section in sections if section) + "\n")
    return written


def _chart(results: Results, workload: str, place: str) -> str:
    lines = [x for x in results.lines if (x.workload, x.place) == (workload, place) and x.runs]
    drawn = [
        chart.Bar(ALL[x.contender].title, x.wall, f"{x.wall:.1f} s", ours=x.contender == "anomaray")
        for x in sorted(lines, key=lambda x: x.wall)
    ]
    return chart.bars(f"{workload}, {place}", "wall seconds, shorter is better", drawn)


def _head(results: Results) -> str:
    machine: dict[str, Any] = results.machine
    packages = ", ".join(f"{name} {found}" for name, found in machine["packages"].items())
    return (
        "# Performance\n\n"
        "Written by `python -m tests.bench report` from measured results; not edited by hand.\n\n"
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}; Python {machine['python']}, {packages}. "
        f"Commit {machine['commit'] or 'unknown'}, {results.started[:10]}.\n\n"
        "Contenders ran in turn on the same cores: one round to warm up, then "
        f"{results.rounds} that count, in rotated order. Figures are medians. Wall time is the "
        "time of the whole command; job time is the program's own count, without its start. CPU "
        "time and peak private memory are of the whole process tree."
    )


def _bars(results: Results) -> str:
    found = bars.verdicts(results)
    if not found:
        return ""
    lines = [
        f"| {v.asked} | {v.bound} | {v.found} | {'yes' if v.holds else '**no**'} |" for v in found
    ]
    head = "| what | bar | measured | holds |\n|---|---|---:|---|"
    return "\n".join(["## The bars\n", head, *lines])


def _section(results: Results, workload: str, place: str, drawing: str) -> str:
    about = _ABOUT.get(workload, f"W1 with {BY_NAME[workload].rows:,} rows: growth")
    line = next(x for x in results.lines if (x.workload, x.place) == (workload, place))
    actual = f"{line.rows:,} rows, {line.files:,} files, {line.bytes / 1e6:,.0f} MB"
    head = "| " + " | ".join(_COLUMNS) + " |\n|---|" + "---:|" * (len(_COLUMNS) - 1)
    body = "\n".join(
        "| " + " | ".join(row).replace("*", "\\*") + " |" for row in rows(results, workload, place)
    )
    again = f"python -m tests.bench run --workload {workload}" + (" --s3" if place == "s3" else "")
    remarks = "".join(f"\n\n\\* {note}" for note in notes(results, workload, place))
    return (
        f"## {workload}, {'from S3' if place == 's3' else 'local disk'}\n\n{about} ({actual}).\n\n"
        f"![wall seconds of each contender on {workload}]({drawing})\n\n{head}\n{body}{remarks}\n\n"
        f"One row again: `{again} --contender NAME`."
    )


def _growth(results: Results) -> str:
    names = dict.fromkeys(x.contender for x in results.lines if x.workload[:2] == "W4" and x.runs)
    found = [(name, bars.growth_of(results, name)) for name in names]
    body = [
        f"| {ALL[name].title} | {one.fixed_seconds:.1f} | {one.rows_per_second:,.0f} "
        f"| {one.furthest:.0%} |"
        for name, one in found
        if one
    ]
    if not body:
        return ""
    head = "| contender | fixed s | rows/s beyond | furthest from the line |\n|---|---:|---:|---:|"
    return "\n".join(["## Growth\n", "Wall seconds = fixed + rows / rate.\n", head, *body])


def _s3(results: Results) -> str:
    if not results.ceiling:
        return ""
    ceiling = results.ceiling
    return (
        "## What the S3 server can deliver\n\n"
        f"{ceiling['megabytes_per_second']:,.0f} MB a second, to {ceiling['threads']:.0f} threads "
        "that fetch whole objects and discard them, on the same cores as the server."
    )


def _how(results: Results) -> str:
    skipped = "".join(f"\n\nNot measured: {n}: {why}." for n, why in results.skipped.items())
    return (
        "## How this was measured\n\n"
        f"```\n{results.command}\npython -m tests.bench report\n```\n\n"
        "`make bench` sets up a virtual environment with all contenders, measures and reports. "
        f"About {ANOMALIES:.0%} of the rows are anomalous. All contenders score with the same "
        "trained bundle, and their flags are compared: a contender whose flags differ by more than "
        f"rounding at the threshold is not reported.{skipped}"
    )
