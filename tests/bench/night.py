"""Measure a night: train and score the demo's flows, multiplied, by the command line.

    python -m tests.bench.night --folder demo/bench --scale 17.3

prints rows per second of both and the peak private memory of the whole process tree, as JSON.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from jobs.demo import data
from tests.bench import measure
from tests.bench.measure import ROOT


def measured(*arguments: str) -> dict[str, Any]:
    """Run a verb; its JSON result with wall seconds and peak private memory."""
    ended = measure.run([sys.executable, "-m", "jobs", *arguments, "--json"])
    if ended.cost.status:
        sys.stderr.write(ended.errors)
        raise SystemExit(f"{' '.join(arguments)} ended with {ended.cost.status}")
    result: dict[str, Any] = json.loads(ended.output)
    return {
        **result,
        "wall_seconds": round(ended.cost.wall_seconds, 1),
        "peak_private_bytes": ended.cost.peak_private_bytes,
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
    summary = data.write(given.folder.absolute(), scale=given.scale)
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
