"""The card transactions of the Fraud Detection Handbook, by the handbook's own protocol.

    python -m tests.bench.fraud [--data ../shared/data] [supervised] [unsupervised]
                                [earlier_labels] [derive]

Learn from 2018-06-01..07, wait a week for the labels, judge 2018-06-15..21. Of each judged day the
transactions of customers are left out who were known as defrauded by then: in the training week,
or on a day whose labels have come in since (`get_train_test_set` of the handbook). The figures are
printed so, and over all rows. The handbook's detectors without labels see, as its classifiers do,
how many earlier transactions of a terminal were found out: `earlier_labels`. `unsupervised` sees no
label in any form, and has a ceiling, which is printed beside it: frauds of scenario 2 look like
every other transaction of their terminal. `derive` times the derivation of all 91 days, and of one
night.
"""

import argparse
import json
import time
from collections.abc import Sequence
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

from cluster.lake.input.partitions import list_days
from cluster.lake.input.reading import read_rows
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, cut_splits
from cluster.lake.storage.opening import open_store
from jobs import input_rows
from jobs.spec.spec import Spec, load
from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.public_sets import DATA, ROOT

LEARNED = [f"2018-06-{day:02}" for day in range(1, 8)]
JUDGED = [f"2018-06-{day:02}" for day in range(15, 22)]
SUPERVISED = ("classifier",)
UNSUPERVISED = ("autoencoder", "isolation_forest", "pca", "knn", "ensemble")
# Without the isolation forest of its default, which is the weakest of the four here.
OPTIONS = {"ensemble": {"members": [{"name": n} for n in ("autoencoder", "knn", "pca")]}}
# What the rows tell: an amount above 220, or one far above the customer's own.
TOLD = (1, 3)
DELAY = 7  # days until a label is known


def placed(data: Path, folder: Path, *, earlier_labels: bool = True) -> Spec:
    """The repository's spec, with the history of labels or without."""
    document = yaml.safe_load((ROOT / "specs" / "fraud_handbook.yaml").read_text())
    document["input"]["uri"] = str(data / "fraud_handbook")
    document["output"]["uri"] = str(folder / "out")
    if not earlier_labels:
        document["history"] = [h for h in document["history"] if not h.get("labels")]
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


def derived(spec: Spec, days: list[str]) -> pa.Table:
    """The days' derived rows, with `day`."""
    tables = []
    for taken in input_rows.take_snapshots(spec, spec.input.uri, days):
        store, names = open_store(taken.uri), taken.schema.names
        for split in cut_splits(taken, SPLIT_ROWS, SPLIT_BYTES):
            rows = read_rows(store, split, names, SPLIT_ROWS)
            table = pa.Table.from_batches([batch for batch, _ in rows])
            tables.append(table.append_column("day", pa.repeat(taken.day, table.num_rows)))
    return pa.concat_tables(tables)


def scores(spec: Spec, detectors: Sequence[str]) -> pa.Table:
    """The judged rows, with a column of scores of each detector.

    Trained on one device as the jobs do, the newest training day held back.
    """
    learned, held_back, judged = (
        derived(spec, days) for days in (LEARNED[:-1], LEARNED[-1:], JUDGED)
    )
    fit = EncoderFit(spec.features, learned.schema)
    for batch in learned.to_batches():
        fit.update(batch)
    encoder = fit.finish()
    for name in detectors:
        torch.manual_seed(0)
        detector = CATALOG.build(name, encoder.layout, OPTIONS.get(name, {}))
        labels = CATALOG[name].labels != "none"
        learn(
            detector,
            encoded(encoder, learned, labels),
            encoded(encoder, held_back, labels),
            TrainingOptions(),
        )
        found = score_rows(detector, encoded(encoder, judged, labels=False)).numpy()
        judged = judged.append_column(name, pa.array(found))
    return judged


def encoded(encoder: Encoder, rows: pa.Table, labels: bool) -> Batch:
    """All rows, none of which has anything that the encoder refuses."""
    extracted = encoder.extract(rows.combine_chunks().to_batches()[0])
    assert not extracted.problems
    batch: Batch = encoder(extracted)
    if not labels:
        return batch
    return batch._replace(label=torch.from_numpy(rows["label"].to_numpy().astype(np.float32)))


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


def ceiling(table: pa.Table) -> float:
    """AUROC of an oracle that knows every fraud which the rows tell, and guesses at the others."""
    known_frauds = np.isin(table.column("fraud_scenario").to_numpy(), TOLD)
    return round(float(roc_auc_score(table.column("label").to_numpy(), known_frauds)), 4)


def quality(data: Path, folder: Path, what: str) -> dict[str, Any]:
    started = time.monotonic()
    detectors = SUPERVISED if what == "supervised" else UNSUPERVISED
    table = scores(placed(data, folder, earlier_labels=what != "unsupervised"), detectors)
    customers = known(data)
    left_out = [
        customer in customers[day]
        for day, customer in zip(
            table.column("day").to_pylist(), table.column("customer_id").to_pylist(), strict=True
        )
    ]
    fresh = table.filter(pc.invert(pa.array(left_out)))
    return {
        "seconds": round(time.monotonic() - started),
        "rows": [fresh.num_rows, table.num_rows],
        **({"ceiling": [ceiling(fresh), ceiling(table)]} if what == "unsupervised" else {}),
        "protocol": {name: measures(fresh, name) for name in detectors},
        "all_rows": {name: measures(table, name) for name in detectors},
    }


def timing(data: Path, folder: Path) -> dict[str, Any]:
    """Rows a second over all days, then the seconds of one night by itself."""
    spec = placed(data, folder)
    days = list_days(spec.source())
    started = time.monotonic()
    last = input_rows.take_snapshots(spec, spec.input.uri, [days[-1]])
    night = time.monotonic() - started
    started = time.monotonic()
    taken = input_rows.take_snapshots(spec, spec.input.uri, days[:-1])
    seconds = time.monotonic() - started
    rows = sum(one.rows for one in taken)
    again = time.monotonic()
    input_rows.take_snapshots(spec, spec.input.uri, days)
    return {
        "days": len(days),
        "rows": rows + last[0].rows,
        "rows_per_second": round(rows / seconds),
        "one_night_seconds": round(night, 2),
        "reused_seconds": round(time.monotonic() - again, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    choices = ("supervised", "unsupervised", "earlier_labels", "derive")
    parser.add_argument("what", nargs="*", default=list(choices), choices=[*choices, []])
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    data = given.data.absolute()
    for what in given.what:
        with TemporaryDirectory() as folder:
            if what == "derive":
                found = timing(data, Path(folder))
            else:
                found = quality(data, Path(folder), what)
        print(json.dumps({what: found}), flush=True)


if __name__ == "__main__":
    main()
