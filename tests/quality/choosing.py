"""What says, without labels, which detector is the best: measured on ADBench.

    python -m tests.quality.choosing
    python -m tests.quality.choosing --auto --sets annthyroid wine

One JSON line a set and candidate: its AUROC by the labels of test rows, and by each criterion that
needs none: AUROC against planted anomalies of each kind, and agreement with all candidates.
Training rows are not labelled, and hold the set's own share of anomalies, or none with --clean.
With --auto only what `detector: auto` chooses is measured, and beside it the detectors of --beside
as they are.
"""

import argparse
import json
import sys
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.layout import Layout
from models.selection.auto import AutoConfig, Candidate, choose, list_candidates
from models.selection.synthetic_anomalies import KINDS
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.public_sets import DATA
from tests.quality.few_labels import CHOSEN_ON, CONFIRMED_ON, encoded, halves


class Rows(NamedTuple):
    """A set, cut: no label reaches what is learned from."""

    layout: Layout
    learned: Batch
    held_back: Batch
    tested: Batch  # with labels


def cut(name: str, seed: int, clean: bool) -> Rows:
    """A fifth of the training rows is held back. Of clean ones the labels say that they are."""
    table = pq.read_table(DATA / "adbench" / f"{name}.parquet")
    generator = np.random.default_rng(seed)
    train, test = halves(table["label"].to_numpy(), generator)
    encoder, rows, tested = encoded(table, generator.permutation(train), test)
    assert rows.label is not None
    if clean:
        rows = rows.take(rows.label < 0.5)
    else:
        rows = rows._replace(label=torch.full((len(rows.numeric),), torch.nan))
    held = len(rows.numeric) // 5
    return Rows(encoder.layout, rows.take(slice(held, None)), rows.take(slice(held)), tested)


def truth(rows: Rows, candidate: Candidate, training: TrainingOptions) -> tuple[Detector, Tensor]:
    """The candidate, trained, and its scores of the test rows."""
    torch.manual_seed(training.seed)
    detector = CATALOG.build(candidate.name, rows.layout, candidate.options)
    learned, held_back = (part._replace(label=None) for part in (rows.learned, rows.held_back))
    learn(detector, learned, held_back, training)
    return detector, score_rows(detector, rows.tested)


def by_auto(
    name: str, rows: Rows, training: TrainingOptions, beside: list[str]
) -> list[dict[str, float | str]]:
    """What `auto` chooses, and fixed detectors beside it."""
    winner = choose(rows.layout, rows.learned, rows.held_back, AutoConfig(), training).winner
    asked = [("auto", winner), *((other, Candidate(other)) for other in beside)]
    return [
        {
            "set": name,
            "candidate": label,
            "chosen": candidate.text,
            "truth": _auroc(rows, truth(rows, candidate, training)[1]),
        }
        for label, candidate in asked
    ]


def _auroc(rows: Rows, scores: Any) -> float:
    assert rows.tested.label is not None
    return round(float(roc_auc_score(rows.tested.label.numpy(), scores)), 4)


def lines(name: str, rows: Rows, training: TrainingOptions) -> list[dict[str, float | str]]:
    """One of each candidate, and one of the mean of their ranks, on one set."""
    held_back = rows.held_back._replace(label=None)
    planted = {
        kind: make(held_back, rows.layout, torch.Generator().manual_seed(training.seed))
        for kind, make in KINDS.items()
    }
    found, scores, tests = [], [], []
    for candidate in list_candidates(rows.layout):
        detector, tested = truth(rows, candidate, training)
        usual = score_rows(detector, held_back).numpy()
        tests.append(rankdata(tested.numpy()))
        line: dict[str, float | str] = {"set": name, "candidate": candidate.text}
        line["truth"] = _auroc(rows, tests[-1])
        for kind, anomalies in planted.items():
            odd = score_rows(detector, anomalies).numpy()
            given = np.repeat([0, 1], [len(usual), len(odd)])
            line[kind] = round(float(roc_auc_score(given, np.concatenate([usual, odd]))), 4)
        found.append(line)
        scores.append(rankdata(usual))
    mean = np.mean(scores, axis=0)
    for line, ranks in zip(found, scores, strict=True):
        line["agreement"] = round(float(spearmanr(ranks, mean).statistic), 4)
    together = _auroc(rows, np.mean(tests, axis=0))
    return [*found, {"set": name, "candidate": "mean rank", "truth": together}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=[*CHOSEN_ON, *CONFIRMED_ON])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--clean", action="store_true", help="Train on normal rows only.")
    parser.add_argument("--auto", action="store_true", help="Measure what auto chooses.")
    parser.add_argument("--beside", nargs="*", default=["ecod", "knn"])
    given = parser.parse_args()
    training = TrainingOptions(epochs=given.epochs, seed=given.seed)
    for name in given.sets:
        rows = cut(name, given.seed, given.clean)
        found = by_auto(name, rows, training, given.beside) if given.auto else None
        for line in found or lines(name, rows, training):
            sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
