"""The card transactions of the Fraud Detection Handbook, by the handbook's own protocol.

    python -m tests.bench.fraud [--data ../shared/data] [supervised] [unsupervised] [derive]

Learn from 2018-06-01..07, wait a week for the labels, judge 2018-06-15..21. Of each judged day the
transactions of customers are left out who were known as defrauded by then: in the training week,
or on a day whose labels have come in since (`get_train_test_set` of the handbook). The figures are
printed so, and over all rows. `derive` times the derivation of all 91 days, and of one night.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
import yaml
from sklearn.metrics import average_precision_score, roc_auc_score

from cluster import judge
from cluster.intake import Books, Intake
from cluster.lake import snapshot
from cluster.lake.registry import Registry
from cluster.lake.store import Store
from cluster.scoring import REGISTRY
from cluster.session import session
from jobs import derive
from jobs.days import SPLIT_BYTES, SPLIT_ROWS
from jobs.spec import Spec, load
from jobs.train import train
from models.bundle import open_bundle

ROOT = Path(__file__).resolve().parents[2]
LEARNED = [f"2018-06-{day:02}" for day in range(1, 8)]
JUDGED = [f"2018-06-{day:02}" for day in range(15, 22)]
CARRIED = ("customer_id", "label", "fraud_scenario")
DELAY = 7  # days until a label is known


def placed(data: Path, folder: Path, *, supervised: bool) -> Spec:
    """The repository's spec; without labels, the history of labels is left out as well."""
    document = yaml.safe_load((ROOT / "specs" / "fraud_handbook.yaml").read_text())
    document["input"]["uri"] = str(data / "fraud_handbook")
    document["output"]["uri"] = str(folder / f"out-{supervised}")
    if not supervised:
        document["detector"] = {"name": "autoencoder"}
        document["history"] = [h for h in document["history"] if not h.get("labels")]
        document["training"]["baselines"] = ["isolation_forest", "pca", "knn"]
    path = folder / "fraud.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return load(path)


def known(data: Path) -> dict[str, set[int]]:
    """For each judged day the customers known as defrauded by then."""
    rows = ds.dataset(data / "fraud_handbook", partitioning="hive").to_table(
        columns=["day", "customer_id", "label"], filter=pc.field("label") == 1
    )
    found: dict[str, set[int]] = {}
    days, customers = rows.column("day").to_pylist(), rows.column("customer_id").to_pylist()
    by_day: dict[str, set[int]] = {}
    for day, customer in zip(days, customers, strict=True):
        by_day.setdefault(str(day), set()).add(customer)
    so_far = set().union(*(by_day.get(day, set()) for day in LEARNED))
    for place, day in enumerate(JUDGED):
        # The day whose labels came in before this one began.
        late = f"2018-06-{15 + place - DELAY - 1:02}"
        so_far = so_far | by_day.get(late, set())
        found[day] = so_far
    return found


def scores(spec: Spec) -> pa.Table:
    """`day`, `CARRIED`, and a column of scores of the champion and of each baseline."""
    registry = Registry(Store.open(spec.output.uri).child(REGISTRY))
    champion = registry.champion_or_refuse()
    bundle = open_bundle(registry.files(champion.bundle), champion.bundle)
    detectors = {bundle.detector_name: bundle.detector.eval()}
    for name, key in champion.baselines.items():
        detectors[name] = open_bundle(registry.files(key), key).detector.eval()
    parts = []
    for taken in derive.take(spec, spec.input.uri, JUDGED):
        intake = Intake(taken.uri, bundle.encoder, spec.roles, None, CARRIED)
        for split in snapshot.cut(taken, SPLIT_ROWS, SPLIT_BYTES):
            for lot in intake.lots(split, Books()):
                found = judge.scores(bundle.encoder, detectors, lot.extracted, torch.device("cpu"))
                columns = {name: lot.rows.column(name) for name in CARRIED}
                day = pa.repeat(taken.day, lot.rows.num_rows)
                parts.append(pa.table({"day": day, **columns, **found}))
    return pa.concat_tables(parts)


def measures(table: pa.Table, name: str) -> dict[str, float]:
    """AUROC, average precision, and card precision at 100 (the mean over days of the share of
    defrauded customers among the 100 with the highest scores)."""
    label, score = table.column("label").to_numpy(), table.column(name).to_numpy()
    precision = []
    for day in JUDGED:
        rows = table.filter(pc.equal(table.column("day"), day))
        cards = rows.group_by("customer_id").aggregate([(name, "max"), ("label", "max")])
        order = np.argsort(-cards.column(f"{name}_max").to_numpy(), kind="stable")[:100]
        precision.append(cards.column("label_max").to_numpy()[order].mean())
    scenario = table.column("fraud_scenario").to_numpy()
    by_scenario = {}
    for kind in np.unique(scenario[label == 1]):
        one = (label == 0) | (scenario == kind)
        by_scenario[f"auroc_of_scenario_{kind}"] = round(
            float(roc_auc_score(label[one], score[one])), 4
        )
    return {
        "auroc": round(float(roc_auc_score(label, score)), 4),
        "average_precision": round(float(average_precision_score(label, score)), 4),
        "card_precision_at_100": round(float(np.mean(precision)), 4),
        **by_scenario,
    }


def quality(data: Path, folder: Path, *, supervised: bool) -> dict[str, Any]:
    started = time.monotonic()
    spec = placed(data, folder, supervised=supervised)
    with session():
        made = train(spec)
    table = scores(spec)
    customers = known(data)
    left_out = [
        customer in customers[day]
        for day, customer in zip(
            table.column("day").to_pylist(), table.column("customer_id").to_pylist(), strict=True
        )
    ]
    fresh = table.filter(pc.invert(pa.array(left_out)))
    names = [n for n in table.column_names if n not in ("day", *CARRIED)]
    return {
        "epochs": made.epochs,
        "seconds": round(time.monotonic() - started),
        "rows": [fresh.num_rows, table.num_rows],
        "protocol": {name: measures(fresh, name) for name in names},
        "all_rows": {name: measures(table, name) for name in names},
    }


def timing(data: Path, folder: Path) -> dict[str, Any]:
    """Rows a second over all days, then the seconds of one night by itself."""
    spec = placed(data, folder, supervised=True)
    days = snapshot.days(spec.input.uri, spec.input.partition)
    started = time.monotonic()
    last = derive.take(spec, spec.input.uri, [days[-1]])
    night = time.monotonic() - started
    started = time.monotonic()
    taken = derive.take(spec, spec.input.uri, days[:-1])
    seconds = time.monotonic() - started
    rows = sum(one.rows for one in taken)
    again = time.monotonic()
    derive.take(spec, spec.input.uri, days)
    return {
        "days": len(days),
        "rows": rows + last[0].rows,
        "rows_per_second": round(rows / seconds),
        "one_night_seconds": round(night, 2),
        "reused_seconds": round(time.monotonic() - again, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("supervised", "unsupervised", "derive")
    parser.add_argument("what", nargs="*", default=list(choices), choices=[*choices, []])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    given = parser.parse_args()
    data = given.data.absolute()
    for what in given.what:
        with TemporaryDirectory() as folder:
            if what == "derive":
                found = timing(data, Path(folder))
            else:
                found = quality(data, Path(folder), supervised=what == "supervised")
        print(json.dumps({what: found}), flush=True)


if __name__ == "__main__":
    main()
