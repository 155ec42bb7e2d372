"""Run the four real specs end to end, and print the detector beside its baselines.

    python -m tests.bench.real [--data ../shared/data] [NAME …]

`ctu50_zeek_flows` follows the protocol of the published baselines (half of the normal rows are
learned from, drawn with seed 0), which cuts across days: the rows are written anew, in two
partitions. `fraud_handbook` is judged on all rows of its days; `tests.bench.fraud` leaves some out,
as the handbook does.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cluster.lake.days import DayRange
from cluster.splits.opening import open_engine
from jobs.evaluate import evaluate
from jobs.spec.spec import load
from jobs.train import train
from tests.public_sets import DATA, ROOT

# Days to evaluate on: those that were not learned from.
TESTED = {
    "nsl_kdd": "all",
    "cicids2017_flows": "2017-07-04..2017-07-07",
    "ctu50_zeek_flows": "test",
    "fraud_handbook": "2018-06-15..2018-06-21",
}


def placed(name: str, data: Path, folder: Path) -> Path:
    """The spec with the data's and the output's places filled in."""
    document = yaml.safe_load((ROOT / "specs" / f"{name}.yaml").read_text())
    for section in ("input", "training"):
        uri = document[section].get("uri")
        if uri:
            document[section]["uri"] = uri.replace("../shared/data", str(data))
    document["output"]["uri"] = str(folder / "out" / name)
    if name == "ctu50_zeek_flows":
        document["input"]["uri"] = str(halves(data / name, folder))
        document["training"]["days"] = "train"
        document.pop("nightly", None)
    if name == "fraud_handbook":
        document["training"]["days"] = "2018-06-01..2018-06-07"
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def halves(source: Path, folder: Path) -> Path:
    """`day=train`: half of the normal rows; `day=test`: the other half and all anomalies."""
    parts = [pq.read_table(p, partitioning=None) for p in sorted(source.glob("day=*/*.parquet"))]
    rows = pa.concat_tables(parts)
    normal = np.flatnonzero(rows.column("label").to_numpy() == 0)
    chosen = np.random.default_rng(0).permutation(normal)[: len(normal) // 2]
    learned = np.zeros(len(rows), bool)
    learned[chosen] = True
    target = folder / "halves"
    for name, mask in (("train", learned), ("test", ~learned)):
        (target / f"day={name}").mkdir(parents=True)
        pq.write_table(rows.filter(pa.array(mask)), target / f"day={name}" / "part-0.parquet")
    return target


def run(name: str, data: Path, folder: Path) -> dict[str, Any]:
    started = time.monotonic()
    spec = load(placed(name, data, folder))
    made = train(spec)
    found = evaluate(spec, DayRange.parse(TESTED[name]))
    measures = {
        detector: {key: quality[key]["value"] for key in ("auroc", "auprc")}
        for detector, quality in found["quality"].items()
    }
    seconds = time.monotonic() - started
    return {"rows": made.rows, "epochs": made.epochs, "seconds": round(seconds), **measures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(TESTED), metavar="NAME")
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    with TemporaryDirectory() as folder, open_engine():
        for name in given.names:
            print(json.dumps({name: run(name, given.data.absolute(), Path(folder))}), flush=True)


if __name__ == "__main__":
    main()
