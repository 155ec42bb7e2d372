"""Where the time of a run goes: its profile beside the time of the hand-written loop."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.results import Line, Results

IDLE = "idle"  # threads of actors without a split: while Ray starts, and while the driver commits


def profile(out: Path) -> dict[str, Any] | None:
    """The profile on the run card of a run with this output folder; None without a card."""
    for card in (out / "reports").rglob("run_card.json"):
        found: dict[str, Any] | None = json.loads(card.read_text()).get("profile")
        return found
    return None


def section(results: Results) -> str:
    """For each local workload, where the time of driver and actors went; empty without profiles."""
    lines = [x for x in results.lines if x.contender == "anomaray" and x.place == "local"]
    tables = [table for line in lines if (table := _table(results, line))]
    if not tables:
        return ""
    return (
        "## Where the time goes\n\n"
        "The driver's stages are in seconds of wall time and add up to the job time. The actors' "
        "stages are in seconds of all threads, and in nanoseconds of one thread for each row. The "
        "hand-written loop reads the same columns and scores them; it has no journal, books, "
        "checksums, reasons or quarantine."
        "\n\n" + "\n\n".join(tables)
    )


def _table(results: Results, line: Line) -> str:
    profiles = [run.profile for run in line.runs if run.profile]
    if not profiles:
        return ""
    driver = _medians([one["driver"] for one in profiles])
    actors = _medians([one["actors"] for one in profiles])
    rows = [f"| driver: {stage} | {s:.2f} | – |" for stage, s in driver.items()]
    busy = {stage: s for stage, s in actors.items() if stage != IDLE}
    rows += [_per_row(f"actors: {stage}", s, line.rows) for stage, s in busy.items()]
    rows.append(_per_row("**actors, busy**", sum(busy.values()), line.rows))
    for name in ("limit", "limit_torch"):
        loop = results.find(name, line.workload)
        if loop:
            rows.append(
                _per_row(f"the loop's CPU, `{name}`", loop.median("cpu_seconds"), loop.rows)
            )
    floor = results.find("floor", line.workload)
    if floor:
        rows.append(f"| Ray's start and stop, torch's import: wall | {floor.wall:.2f} | – |")
    head = f"{line.workload}, {line.rows:,} rows in {line.files:,} files:\n\n"
    return head + "| stage | s | ns a row |\n|---|---:|---:|\n" + "\n".join(rows)


def _per_row(title: str, seconds: float, rows: int) -> str:
    return f"| {title} | {seconds:.2f} | {seconds / rows * 1e9:,.0f} |"


def _medians(several: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for one in several for name in one)
    return {name: float(median(one.get(name, 0.0) for one in several)) for name in names}
