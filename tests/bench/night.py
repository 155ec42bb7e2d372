"""Measure a night: train and score the demo's flows, multiplied, by the command line.

    python -m tests.bench.night --folder demo/bench --scale 17.3

prints rows per second of both and the peak private memory of the whole process tree, as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import yaml

from jobs import demo

ROOT = Path(__file__).resolve().parents[2]
_SAMPLE_S = 0.25


def tree(pid: int) -> set[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            children.setdefault(int(stat.rsplit(")", 1)[1].split()[1]), []).append(int(entry.name))
    found, todo = {pid}, [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def private_bytes(pids: set[int]) -> int:
    """Memory that only these processes use: shared pages of libraries and the object store are
    not counted."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if "Private" in line)
    return total * 1024


def measured(*arguments: str) -> dict[str, Any]:
    """Run a verb; its JSON result with wall seconds and peak private memory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments, "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(_SAMPLE_S):
            peak = max(peak, private_bytes(tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.monotonic()
    output, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return {
        **result,
        "wall_seconds": round(time.monotonic() - started, 1),
        "peak_private_bytes": peak,
    }


def spec_over(folder: Path) -> Path:
    """The demo's flow spec over the multiplied data."""
    document = yaml.safe_load((ROOT / "specs" / "demo_flows.yaml").read_text())
    document["input"]["uri"] = str(folder / "flows")
    document["output"]["uri"] = str(folder / "out")
    document.setdefault("training", {})["epochs"] = 2
    document["training"]["workers"] = 2
    # A Sunday has half the rows of a Friday: nothing to stop a benchmark for.
    document["gates"] = {"flag_rate": [0, 0.5], "volume": None}
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=17.3, help="17.3 makes 5 million flows")
    given = parser.parse_args()
    summary = demo.write(given.folder.absolute(), scale=given.scale)
    spec = spec_over(given.folder.absolute())
    train = measured("train", str(spec), "--days", f"{summary.days[0]}..{summary.days[-2]}")
    # All fourteen days one after the other in one process: what a backfill does.
    scored = measured("backfill", str(spec), "--days", f"{summary.days[0]}..{summary.days[-1]}")
    days = scored["days"]
    rows, seconds = sum(d["rows"] for d in days), sum(d["seconds"] for d in days)
    mib = 1024**2
    print(
        json.dumps(
            {
                "flows": summary.rows["flows"],
                "train": {
                    "rows": train["rows"],
                    "epochs": train["epochs"],
                    "rows_per_second": round(train["rows_per_second"]),
                    "wall_seconds": train["wall_seconds"],
                    "peak_private_mib": round(train["peak_private_bytes"] / mib),
                },
                "score": {
                    "rows": rows,
                    "rows_per_second": round(rows / seconds),
                    "wall_seconds": scored["wall_seconds"],
                    "rows_per_wall_second": round(rows / scored["wall_seconds"]),
                    "peak_private_mib": round(scored["peak_private_bytes"] / mib),
                },
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
