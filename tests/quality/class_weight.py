"""What the largest weight of a rare class costs and gains the classifier, on labelled tables.

    python -m tests.quality.class_weight adbench --sets annthyroid cardio
    python -m tests.quality.class_weight fraud --months 06 05

One JSON line a set and weight (`max_weight`): AUROC and average precision on rows that were not
learned from, mean of the seeds. ADBench by the split of `tests.quality.few_labels`, all labelled;
card fraud by the protocol of `tests.bench.fraud`: learn from days 1 to 7, judge days 15 to 21.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.bench import fraud
from tests.public_sets import DATA
from tests.quality.few_labels import CHOSEN_ON, CONFIRMED_ON, encoded, halves

WEIGHTS = (1.0, 3.0, 10.0, 30.0, 100.0)
_HELD_BACK = 0.2


class Rows(NamedTuple):
    """A labelled set, cut."""

    encoder: Encoder
    learned: Batch
    held_back: Batch
    judged: Batch


def cut_table(data: Path, name: str, seed: int) -> Rows:
    """One ADBench set."""
    table = pq.read_table(data / "adbench" / f"{name}.parquet")
    generator = np.random.default_rng(seed)
    train, test = halves(table["label"].to_numpy(), generator)
    encoder, rows, tested = encoded(table, generator.permutation(train), test)
    held = int(len(rows.numeric) * _HELD_BACK)
    return Rows(encoder, rows.take(slice(held, None)), rows.take(slice(held)), tested)


def cut_month(data: Path, month: str) -> Rows:
    """Two weeks of one month of card transactions, with histories; all customers are judged."""
    days = [f"2018-{month}-{day:02}" for day in range(1, 22)]
    with TemporaryDirectory() as folder:
        spec = fraud.placed(data, Path(folder))
        parts = [fraud.derived(spec, part) for part in (days[:6], days[6:7], days[14:])]
    fit = EncoderFit(spec.features, parts[0].schema)
    for batch in parts[0].to_batches():
        fit.update(batch)
    encoder = fit.finish()
    learned, held_back, judged = (fraud.encoded(encoder, part, labels=True) for part in parts)
    return Rows(encoder, learned, held_back, judged)


def measure(rows: Rows, weight: float, seed: int) -> tuple[float, float]:
    """AUROC and average precision with this `max_weight`."""
    encoder, learned, held_back, judged = rows
    torch.manual_seed(seed)
    detector = CATALOG.build("classifier", encoder.layout, {"max_weight": weight})
    learn(detector, learned, held_back, TrainingOptions(seed=seed))
    scores = score_rows(detector, judged._replace(label=None)).numpy()
    assert judged.label is not None
    truth = judged.label.numpy()
    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def draw_sets(given: argparse.Namespace) -> Iterator[tuple[str, list[Rows]]]:
    """Each set with its rows, one cut a seed."""
    if given.data == "fraud":
        for month in given.months:
            yield f"fraud 2018-{month}", [cut_month(given.folder, month)] * given.seeds
    else:
        for name in given.sets:
            yield name, [cut_table(given.folder, name, seed) for seed in range(given.seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["adbench", "fraud"])
    parser.add_argument("--folder", type=Path, default=DATA, help="where the sets are")
    parser.add_argument("--sets", nargs="*", default=[*CHOSEN_ON, *CONFIRMED_ON])
    parser.add_argument("--months", nargs="*", default=["06", "05", "04"])
    parser.add_argument("--weights", nargs="*", type=float, default=WEIGHTS)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    for name, cuts in draw_sets(given):
        for weight in given.weights:
            found = [measure(rows, weight, seed) for seed, rows in enumerate(cuts)]
            auroc, auprc = np.mean(found, axis=0).round(4).tolist()
            line = {"set": name, "max_weight": weight, "auroc": auroc, "auprc": auprc}
            sys.stdout.write(json.dumps(line | {"seeds": given.seeds}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
