"""The registry on a terminal."""

import io
from typing import Any

from rich.console import Console

from jobs.registry import render_tables
from models.detectors.catalog import CATALOG


def test_bundles_and_champions_fit_80_columns_with_whole_ids() -> None:
    document: dict[str, Any] = {
        "watch": "a_watch_with_a_long_name_indeed",
        "bundles": [
            {
                "id": f"{i:016x}",
                "detector": detector,
                "days": [f"2026-11-{day:02d}" for day in range(1, 14)],
                "rows": 12_345_678_901,
                "validation_loss": -0.00012345,
                "champion": i == 2,
            }
            for i, detector in enumerate(CATALOG)
        ],
        "champions": [
            {
                "bundle": f"{i:016x}",
                "threshold": f"{i + 99:016x}",
                "note": "promoted by hand",
                "created": "2026-11-22T01:14:50.123456+00:00",
            }
            for i in range(12)
        ],
    }
    shown = Console(file=io.StringIO(), width=80)
    for table in render_tables(document):
        shown.print(table)
    assert isinstance(shown.file, io.StringIO)
    lines = [line.rstrip() for line in shown.file.getvalue().splitlines()]
    assert all(len(line) <= 80 for line in lines)
    champion = next(line for line in lines if line.startswith("*")).split()
    assert champion[1:] == [
        f"{2:016x}",
        list(CATALOG)[2],
        "13",
        "2026-11-13",
        "12.3G",
        "-0.0001234",
    ]
    for i in range(len(CATALOG)):
        assert any(f" {i:016x} " in line for line in lines)
    last = lines[lines.index("the last 10 champions") + 2]
    assert last == f"2026-11-22 01:14 {11:016x} {110:016x} promoted by hand"
