"""What says, without labels, which detector is the best: measured on ADBench.

    python -m tests.quality.choosing

One JSON line a set and candidate: its AUROC by the labels of test rows, and by each criterion that
needs none: AUROC against planted anomalies of each kind, and agreement with all candidates.
Training rows are not labelled, and hold the set's own share of anomalies, or none with --clean.
"""

import argparse
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import torch
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import roc_auc_score

from models import catalog
from models.choosing import candidates
from models.learning import TrainingOptions, learn, scored
from models.planted import KINDS
from tests.quality.few_labels import CHOSEN_ON, CONFIRMED_ON, DATA, encoded, halves


def lines(name: str, seed: int, epochs: int, clean: bool) -> list[dict[str, float | str]]:
    """One of each candidate, and one of the mean of their ranks, on one set."""
    table = pq.read_table(DATA / "adbench" / f"{name}.parquet")
    generator = np.random.default_rng(seed)
    train, test = halves(table["label"].to_numpy(), generator)
    encoder, rows, tested = encoded(table, generator.permutation(train), test)
    assert rows.label is not None
    assert tested.label is not None
    if clean:
        rows = rows.take(rows.label < 0.5)
    held = len(rows.numeric) // 5
    learned, held_back = (
        rows.take(part)._replace(label=None) for part in (slice(held, None), slice(held))
    )
    planted = {
        kind: make(held_back, encoder.layout, torch.Generator().manual_seed(seed))
        for kind, make in KINDS.items()
    }
    found, scores, tests = [], [], []
    for candidate in candidates(encoder.layout):
        torch.manual_seed(seed)
        detector = catalog.build(candidate.name, encoder.layout, candidate.options)
        learn(detector, learned, held_back, TrainingOptions(epochs=epochs, seed=seed))
        usual = scored(detector, held_back).numpy()
        tests.append(rankdata(scored(detector, tested).numpy()))
        truth = roc_auc_score(tested.label.numpy(), tests[-1])
        line: dict[str, float | str] = {"set": name, "candidate": candidate.text}
        line["truth"] = round(float(truth), 4)
        for kind, anomalies in planted.items():
            odd = scored(detector, anomalies).numpy()
            given = np.repeat([0, 1], [len(usual), len(odd)])
            line[kind] = round(float(roc_auc_score(given, np.concatenate([usual, odd]))), 4)
        found.append(line)
        scores.append(rankdata(usual))
    mean = np.mean(scores, axis=0)
    for line, ranks in zip(found, scores, strict=True):
        line["agreement"] = round(float(spearmanr(ranks, mean).statistic), 4)
    truth = roc_auc_score(tested.label.numpy(), np.mean(tests, axis=0))
    return [*found, {"set": name, "candidate": "mean rank", "truth": round(float(truth), 4)}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=[*CHOSEN_ON, *CONFIRMED_ON])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--clean", action="store_true", help="Train on normal rows only.")
    given = parser.parse_args()
    for name in given.sets:
        for line in lines(name, given.seed, given.epochs, given.clean):
            sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
