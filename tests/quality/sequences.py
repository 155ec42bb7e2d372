"""How good the detectors of series are: `python -m tests.quality.sequences`.

One JSON line on stdout for each set, detector, seed and metric. F1 is the best over all thresholds
and never point-adjusted (Kim et al., AAAI 2022: with adjustment a random score wins). Of sets with
many machines there is one threshold for all, as in their table, on scores ("F1") and on severities
("F1 of severities": a score has a unit of its own in each model, its severity is what its own
held-back rows make of it, and what a watch is judged by), and one threshold each ("mean F1").
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from models.detectors.catalog import CATALOG
from models.scores.severity import Severity
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from tests.quality import nab
from tests.quality.sequence_sets import SERIES_SETS, Task

Floats = npt.NDArray[np.float64]

DETECTORS = (
    "forecaster",
    "recurrent_autoencoder",
    "matrix_profile",
    "spectral_residual",
    "anomaly_likelihood",
    "knn",
    "pca",
)
EPOCHS = 8  # passes over the windows of a series; each window holds a lesson a step


class Result(NamedTuple):
    """What a detector said of the rows that the protocol asks about, and whether it was right."""

    said: nab.Scored
    severities: Floats  # [points], by the held-back rows of the training part; else as scores
    train_seconds: float
    score_seconds: float


def judged(detector: str, task: Task, options: TrainingOptions) -> Result:
    """A detector with its defaults, trained and asked."""
    start = time.perf_counter()
    torch.manual_seed(options.seed)
    model = CATALOG.build(detector, task.layout, {})
    learn(model, task.train, task.held_back, options)
    trained = time.perf_counter()
    scores = score_rows(model, task.test).double().numpy()
    said = nab.Scored(scores, task.anomalous, task.counted)
    seconds = time.perf_counter() - trained
    usual = ScoreSketch()
    usual.update(score_rows(model, task.held_back).numpy())
    severity = Severity.from_calibration(Calibration(usual))
    return Result(said, severity(scores).astype(np.float64), trained - start, seconds)


def best_f1(anomalous: npt.NDArray[np.bool_], scores: Floats) -> float:
    precision, recall, _ = precision_recall_curve(anomalous, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def metrics(dataset: str, results: list[Result]) -> dict[str, float]:
    """Over the rows of all tasks together, and the mean over tasks that have an anomaly."""
    said = [r.said for r in results]
    pairs = [(s.inside[s.counted], s.scores[s.counted]) for s in said]
    anomalous, scores = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    found = {
        "F1": best_f1(anomalous, scores),
        "AUROC": float(roc_auc_score(anomalous, scores)),
        "AUPRC": float(average_precision_score(anomalous, scores)),
    }
    both = [pair for pair in pairs if 0 < pair[0].sum() < len(pair[0])]
    if len(results) > 1:
        severities = np.concatenate([r.severities[r.said.counted] for r in results])
        found["F1 of severities"] = best_f1(anomalous, severities)
        found["mean F1"] = float(np.mean([best_f1(*pair) for pair in both]))
        found["mean AUROC"] = float(np.mean([roc_auc_score(*pair) for pair in both]))
    if dataset == "nab":
        found["NAB score"] = nab.nab_score(said)
        likely = [s._replace(scores=nab.anomaly_likelihood(s.scores)) for s in said]
        found["NAB score of the likelihood"] = nab.nab_score(likely)
    return found


def report(dataset: str, detector: str, seed: int, results: list[Result]) -> None:
    rows = sum(len(r.said.scores) for r in results)
    seconds = sum(r.score_seconds for r in results)
    for metric, value in metrics(dataset, results).items():
        line = {
            "dataset": dataset,
            "detector": detector,
            "seed": seed,
            "metric": metric,
            "value": round(value, 4),
            "train_seconds": round(sum(r.train_seconds for r in results), 1),
            "rows_per_second": round(rows / max(seconds, 1e-9)),
        }
        print(json.dumps(line), flush=True)


def windowed_gaussian(task: Task) -> Result:
    """NAB's own baseline on the same series, so that both are scored on the same part of it."""
    assert task.values is not None
    start = time.perf_counter()
    scores = nab.windowed_gaussian(task.values.astype(np.float64))
    said = nab.Scored(scores, task.anomalous, task.counted)
    return Result(said, scores, 0.0, time.perf_counter() - start)


def measure(dataset: str, detectors: list[str], seed: int, steps: int, few: int | None) -> None:
    """Report every detector on the first `few` tasks of a set, or on all."""
    options = TrainingOptions(epochs=EPOCHS, seed=seed)

    def tasks() -> Iterator[Task]:  # anew each time: the windows of all machines fill a memory
        return islice(SERIES_SETS[dataset](steps, seed), few)

    for detector in detectors or DETECTORS:
        report(dataset, detector, seed, [judged(detector, task, options) for task in tasks()])
    if dataset == "nab":
        report(dataset, "windowed Gaussian (NAB's)", seed, list(map(windowed_gaussian, tasks())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=[*SERIES_SETS])
    parser.add_argument("--detectors", nargs="+", default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=32, help="rows of a window of a series")
    parser.add_argument("--tasks", type=int, default=None, help="only the first so many of a set")
    given = parser.parse_args()
    for dataset in given.sets:
        for seed in given.seeds:
            measure(dataset, given.detectors, seed, given.steps, given.tasks)


if __name__ == "__main__":
    main()
