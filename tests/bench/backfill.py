"""What days cost beside their rows: `python -m tests.bench.backfill`.

In each round, `backfill` scores 30 days of 100,000 rows, one file each, and `score` one day with
the same files. Prints the medians of their wall and CPU seconds, and the ratio.
"""

import argparse
import json
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path
from statistics import median

import yaml

from tests.bench import measure, prepare
from tests.bench.contenders import anomaray
from tests.bench.measure import Cost
from tests.bench.prepare import Case
from tests.bench.workloads import DAY, Workload

DAYS, ROWS = 30, 100_000


def cut_into_days(lake: Path) -> Path:
    """A lake with a day for each file of this one."""
    days = lake.with_name(f"{lake.name}-days")
    shutil.rmtree(days, ignore_errors=True)
    for number, file in enumerate(sorted(lake.glob("day=*/*.parquet"))):
        folder = days / f"day={date.fromisoformat(DAY) + timedelta(number)}"
        folder.mkdir(parents=True)
        (folder / file.name).hardlink_to(file)
    return days


def write_spec(case: Case, source: Path) -> Path:
    document = yaml.safe_load(case.spec.read_text())
    document["input"]["uri"] = str(source)
    path = case.spec.with_name(f"{source.name}.yaml")
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def run(spec: Path, out: Path, verb: list[str]) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    anomaray.fresh(spec, out)
    ended = measure.run([sys.executable, "-m", "jobs", verb[0], str(out / "spec.yaml"), *verb[1:]])
    if ended.cost.status:
        sys.stderr.write(ended.errors)
        raise SystemExit(f"{verb[0]} ended with {ended.cost.status}")
    return ended.cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("demo/bench"))
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    case = prepare.case(given.folder.absolute(), Workload("backfill", DAYS * ROWS, DAYS))
    last = date.fromisoformat(DAY) + timedelta(DAYS - 1)
    one = (case.spec, ["score", "--day", DAY])
    days = (
        write_spec(case, cut_into_days(case.local_lake)),
        ["backfill", "--days", f"{DAY}..{last}"],
    )
    out = given.folder.absolute() / "out" / "backfill"
    costs: dict[str, list[Cost]] = {"one": [], "days": []}
    for number in range(given.rounds):
        turn = [("one", one), ("days", days)]
        for name, (spec, verb) in turn if number % 2 else turn[::-1]:
            costs[name].append(run(spec, out, verb))
    shutil.rmtree(out)
    wall = {name: median(c.wall_seconds for c in found) for name, found in costs.items()}
    cpu = {name: median(c.cpu_seconds for c in found) for name, found in costs.items()}
    print(
        json.dumps(
            {
                "rounds": given.rounds,
                "one day, wall seconds": round(wall["one"], 1),
                f"{DAYS} days, wall seconds": round(wall["days"], 1),
                "ratio of wall seconds": round(wall["days"] / wall["one"], 2),
                "ratio of CPU seconds": round(cpu["days"] / cpu["one"], 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
