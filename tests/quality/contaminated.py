"""Training on rows with anomalies among them: what `training.trim` brings.

    python -m tests.quality.contaminated --trim 0 0.1 --contamination 0.05 0.1

One JSON line a set, contamination and trim: AUROC and AUPRC, means over the seeds. Half of the
normal rows, with a share of anomalies mixed in and no label, are learned from; all other rows are
tested on. NSL-KDD is learned from its training file and tested on the other.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from jobs.spec.spec import load
from models.columns import FeatureColumn, Numeric
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.public_sets import DATA

SETS = ("nsl_kdd", "annthyroid", "cardio", "magic_gamma", "mammography", "pendigits", "shuttle")
SPEC = Path(__file__).parents[2] / "specs" / "nsl_kdd.yaml"
_ROWS, _HELD_BACK = 10_000, 0.1


def tables(name: str) -> tuple[pa.Table, pa.Table | None, tuple[FeatureColumn, ...]]:
    """Rows to learn from, rows to test on where they are apart, features."""
    if name == "nsl_kdd":
        train, test = (pq.read_table(DATA / name / f"{part}.parquet") for part in ("train", "test"))
        return train, test, load(SPEC).features
    table = pq.read_table(DATA / "adbench" / f"{name}.parquet")
    names = [column for column in table.column_names if column not in ("row_id", "label")]
    return table, None, tuple(map(Numeric, names))


def drawn(
    label: np.ndarray, contamination: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to learn from, in any order, and the others."""
    normal = generator.permutation(np.flatnonzero(label == 0))
    anomalous = generator.permutation(np.flatnonzero(label == 1))
    half = min(len(normal) // 2, _ROWS)
    mixed = min(round(half * contamination / (1 - contamination)), len(anomalous) // 2)
    learned = generator.permutation(np.concatenate([normal[:half], anomalous[:mixed]]))
    return learned, np.concatenate([normal[half : half + _ROWS], anomalous[mixed:]])


def figures(
    detector: str, name: str, contamination: float, training: TrainingOptions
) -> tuple[float, float]:
    """AUROC and AUPRC of one set with the seed of the training."""
    table, apart, columns = tables(name)
    generator = np.random.default_rng(training.seed)
    learned, others = drawn(table["label"].to_numpy(), contamination, generator)
    rows = table.take(learned).combine_chunks().to_batches()[0]
    tested = (apart or table.take(others)).combine_chunks().to_batches()[0]
    fit = EncoderFit(columns, rows.schema)
    fit.update(rows)
    encoder: Encoder = fit.finish().eval()
    with torch.no_grad():
        raw, asked = encoder.extract(rows), encoder.extract(tested)
        inputs, test = encoder(raw), encoder(asked)
    held = int(len(learned) * _HELD_BACK)
    torch.manual_seed(training.seed)
    built = CATALOG.build(detector, encoder.layout, {})
    learn(built, inputs.take(slice(held, None)), inputs.take(slice(held)), training)
    scores, truth = score_rows(built, test).numpy(), tested["label"].to_numpy()
    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detector", default="autoencoder")
    parser.add_argument("--sets", nargs="*", default=SETS)
    parser.add_argument("--contamination", nargs="*", type=float, default=[0.05, 0.1])
    parser.add_argument("--trim", nargs="*", type=float, default=[0.0, 0.1])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    given = parser.parse_args()
    for name in given.sets:
        for contamination in given.contamination:
            for trim in given.trim:
                options = [
                    TrainingOptions(seed=seed, trim=trim, epochs=given.epochs)
                    for seed in range(given.seeds)
                ]
                found = [figures(given.detector, name, contamination, o) for o in options]
                auroc, auprc = (round(float(mean), 4) for mean in np.mean(found, axis=0))
                line = {"set": name, "contamination": contamination, "trim": trim}
                sys.stdout.write(json.dumps({**line, "auroc": auroc, "auprc": auprc}) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
