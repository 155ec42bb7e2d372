"""Writes days of network flows and card transactions with planted, labelled incidents.

All days are drawn from one seed: the same call writes the same bytes.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo import cards, flows
from models.refusal import Refusal

FIRST_DAY = date(2026, 1, 1)
FILES_A_DAY = 2
GROUPS_A_FILE = 2
MARKER = "demo.json"  # marks a folder of the demo, which may be replaced

Progress = Callable[[int, int], None]  # files written, files in all


@dataclass(frozen=True)
class Summary:
    """The written data: `<folder>/flows/day=D/part-N.parquet`, and the same for `cards`."""

    folder: Path
    days: tuple[str, ...]
    rows: dict[str, int] = field(default_factory=dict)  # by source: "flows", "cards"
    incidents: dict[str, dict[str, int]] = field(default_factory=dict)  # source -> incident -> rows

    def to_document(self) -> dict[str, object]:
        """The summary as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


def write(
    folder: Path,
    *,
    days: int = 14,
    first_day: date = FIRST_DAY,
    seed: int = 7,
    scale: float = 1.0,
    progress: Progress | None = None,
) -> Summary:
    """Write the demo under `folder`, replacing an earlier demo there.

    `scale` multiplies the rows: 1 is about 25,000 flows and 12,000 transactions a day. The last day
    has every kind of incident. Raises `Refusal` if `folder` has data that is not from the demo.
    """
    if days < 1 or not 0 < scale <= 1000:
        text = f"expected days >= 1 and 0 < scale <= 1000, found days={days}, scale={scale}"
        raise Refusal(text)
    _prepare(folder, {"days": days, "first_day": str(first_day), "seed": seed, "scale": scale})
    names = tuple(str(first_day + timedelta(days=number)) for number in range(days))
    summary = Summary(folder, names)
    total = days * FILES_A_DAY * 2
    done = 0
    for source, number, table in _draw_days(days, first_day, seed, scale):
        target = folder / source / f"day={names[number]}"
        target.mkdir(parents=True)
        rows = -(-len(table) // FILES_A_DAY)
        for part in range(FILES_A_DAY):
            _write_file(table.slice(part * rows, rows), target / f"part-{part}.parquet")
            done += 1
            if progress:
                progress(done, total)
        summary.rows[source] = summary.rows.get(source, 0) + len(table)
        counts = summary.incidents.setdefault(source, {})
        for entry in table["incident"].drop_null().value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return summary


def _draw_days(
    days: int, first_day: date, seed: int, scale: float
) -> Iterator[tuple[str, int, pa.Table]]:
    """Every day of both sources. Each has its own generator, so no day depends on another."""
    network = flows.Network.draw(np.random.default_rng([seed, 0]))
    people = cards.People.draw(np.random.default_rng([seed, 1]), scale)
    for number in range(days):
        day = first_day + timedelta(days=number)
        last = number == days - 1
        rng = np.random.default_rng([seed, 2, number])
        yield "flows", number, flows.draw_day(network, rng, day, scale, number, last)
        rng = np.random.default_rng([seed, 3, number])
        yield "cards", number, cards.draw_day(people, rng, day, scale, number, last)


def _prepare(folder: Path, marker: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    there = [folder / source for source in ("flows", "cards") if (folder / source).exists()]
    if there and not (folder / MARKER).is_file():
        text = f"expected a new folder or an earlier demo, found {there[0]} without {MARKER}"
        raise Refusal(f"{text}; name another folder")
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n")
    for path in there:
        shutil.rmtree(path)


def _write_file(table: pa.Table, path: Path) -> None:
    """Writes the file whole, or not at all, with a checksum in every page."""
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(
        table,
        partial,
        row_group_size=max(1, -(-len(table) // GROUPS_A_FILE)),
        compression="zstd",
        write_page_checksum=True,
    )
    partial.rename(path)
