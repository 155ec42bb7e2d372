"""Detectors on images, spectrograms and embeddings: learn from one class, score the rest.

    python -m tests.quality.images --set fashion_mnist --detector pca --detector knn --seed 0

prints a JSON line a class and one with the mean. The label chooses the rows that are learned from
and judges the scores; no detector sees it.
"""

import argparse
import io
import itertools
import json
import time
import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from models.catalog import build, detector_class
from models.detector import Batch, Layout, SignalInput
from models.learning import TrainingOptions, learn, scored

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
HELD_BACK = 0.1  # share of the training rows for the validation loss and the calibration
_LEAST_DEVIATION = 1e-3  # of a channel or band that hardly varies

# 40 mel bands, 32 ms windows every 20 ms: a second at 8 kHz is 40 x 51.
_RATE, _WINDOW, _HOP, _BANDS = 8000, 256, 160, 40


class Rows(NamedTuple):
    """A set in memory."""

    values: Tensor  # float32 [rows, *shape of the signal]
    classes: list[str]
    train: NDArray[np.bool_]  # may be learned from
    test: NDArray[np.bool_]  # are scored
    normal: NDArray[np.str_]  # class that a row is a normal one of, or ""
    kind: Literal["image", "vector"]
    per: tuple[int, ...]  # axes of `values` that share a mean and a deviation


@dataclass(frozen=True)
class Result:
    """One detector on one class."""

    set: str
    normal: str
    detector: str
    seed: int
    trained: int  # rows
    auroc: float
    auprc: float
    train_seconds: float
    rows_per_second: float  # scored, without decoding, on this process's threads
    options: dict[str, Any]


@cache
def fashion_mnist() -> Rows:
    tables = [pq.read_table(DATA / "fashion_mnist" / f"{s}.parquet") for s in ("train", "test")]
    images = [
        np.asarray(Image.open(io.BytesIO(cell.as_py()))) for t in tables for cell in t["image"]
    ]
    values = torch.from_numpy(np.stack(images)).float()[:, None]
    names = np.concatenate([t["class_name"].to_numpy(zero_copy_only=False) for t in tables])
    train = np.arange(len(values)) < len(tables[0])
    return Rows(
        values, sorted(set(names.tolist())), train, ~train, names.astype(str), "image", (0, 2, 3)
    )


@cache
def spoken_digits() -> Rows:
    table = pq.read_table(DATA / "spoken_digits" / "spoken_digits.parquet")
    values = torch.stack([_log_mel(cell.as_py()) for cell in table["audio"]])[:, None]
    digits = table["digit"].to_numpy().astype(str)
    train = table["split"].to_numpy(zero_copy_only=False) == "train"
    return Rows(values, sorted(set(digits.tolist())), train, ~train, digits, "image", (0, 1, 3))


@cache
def mvtec_ad_resnet18() -> Rows:
    """Of each category the first half of the normal rows is learned from, as in ADBench."""
    values, normal, train, test = [], [], [], []
    folders = sorted((DATA / "mvtec_ad_resnet18").glob("category=*"))
    names = [folder.name.partition("=")[2] for folder in folders]
    for folder, name in zip(folders, names, strict=True):
        table = pq.read_table(folder / "part-0.parquet", partitioning=None)
        flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        values.append(flat.reshape(len(table), -1))
        good = table["label"].to_numpy() == 0
        first = good & (good.cumsum() <= good.sum() // 2)
        # Rows of other categories are no test of this one: they would be too easy.
        normal.append(np.where(good, name, f"{name}, defective"))
        train.append(first)
        test.append(~first)
    return Rows(
        torch.from_numpy(np.concatenate(values)).float(),
        names,
        np.concatenate(train),
        np.concatenate(test),
        np.concatenate(normal),
        "vector",
        (0,),
    )


SETS: dict[str, Callable[[], Rows]] = {
    "fashion_mnist": fashion_mnist,
    "spoken_digits": spoken_digits,
    "mvtec_ad_resnet18": mvtec_ad_resnet18,
}


def _log_mel(audio: bytes) -> Tensor:
    """The first second of a WAV of 16 bit mono as [bands, steps]."""
    with wave.open(io.BytesIO(audio)) as file:
        frames = np.frombuffer(file.readframes(_RATE), "<i2")
    sound = torch.zeros(_RATE)
    sound[: len(frames)] = torch.from_numpy(frames.astype(np.float32)) / 2**15
    window = torch.hann_window(_WINDOW)
    power = torch.stft(sound, _WINDOW, _HOP, window=window, return_complex=True).abs().square()
    return torch.log(_mel() @ power + 1e-6)


@cache
def _mel() -> Tensor:
    """Triangles of equal width in mel (O'Shaughnessy, 1987): [bands, frequencies]."""
    top = 2595 * np.log10(1 + _RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, _BANDS + 2) / 2595) - 1)
    frequencies = np.linspace(0, _RATE / 2, _WINDOW // 2 + 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return torch.from_numpy(np.minimum(rising, falling).clip(0)).float()


def layout_of(rows: Rows) -> Layout:
    return Layout((), (), (SignalInput("signal", rows.kind, tuple(rows.values.shape[1:])),))


def batch_of(values: Tensor) -> Batch:
    rows = len(values)
    return Batch(
        torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.int64), None, (values.contiguous(),)
    )


def measure(
    name: str, normal: str, detector_name: str, training: TrainingOptions, options: dict[str, Any]
) -> Result:
    """Learn from the training rows of one class and score the test rows."""
    rows = SETS[name]()
    learned = rows.train & (rows.normal == normal)
    tested = rows.test.copy()
    if name == "mvtec_ad_resnet18":
        tested &= np.char.startswith(rows.normal, normal)
    given = rows.values[torch.from_numpy(learned)]
    mean = given.mean(rows.per, keepdim=True)
    deviation = given.std(rows.per, keepdim=True).clamp_min(_LEAST_DEVIATION)
    given = (given - mean) / deviation
    test = batch_of((rows.values[torch.from_numpy(tested)] - mean) / deviation)
    seed = training.seed
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))
    held_back = max(1, round(HELD_BACK * len(given)))
    torch.manual_seed(seed)
    started = time.perf_counter()
    detector = build(detector_name, layout_of(rows), options)
    train, rest = batch_of(given[order[held_back:]]), batch_of(given[order[:held_back]])
    learn(detector, train, rest, training)
    trained = time.perf_counter()
    scores = scored(detector, test).numpy()
    done = time.perf_counter()
    anomaly = rows.normal[tested] != normal
    return Result(
        name,
        normal,
        detector_name,
        seed,
        len(given),
        round(float(roc_auc_score(anomaly, scores)), 4),
        round(float(average_precision_score(anomaly, scores)), 4),
        round(trained - started, 2),
        round(len(scores) / (done - trained), 1),
        options,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.quality.images", description=__doc__)
    parser.add_argument("--set", action="append", choices=SETS, dest="sets")
    parser.add_argument("--detector", action="append", required=True, dest="detectors")
    parser.add_argument("--seed", action="append", type=int, dest="seeds")
    parser.add_argument("--normal", action="append", default=[], help="class; default: all")
    parser.add_argument("--options", type=json.loads, default={}, help="of the detector, JSON")
    parser.add_argument("--epochs", type=int, default=TrainingOptions().epochs)
    given = parser.parse_args()
    for name, detector in itertools.product(given.sets or SETS, given.detectors):
        if lacking := detector_class(detector).unfit(layout_of(SETS[name]())):
            print(json.dumps({"set": name, "detector": detector, "refused": lacking}), flush=True)
            continue
        found = []
        for normal, seed in itertools.product(
            given.normal or SETS[name]().classes, given.seeds or [0]
        ):
            training = TrainingOptions(seed=seed, epochs=given.epochs)
            result = measure(name, normal, detector, training, given.options)
            print(json.dumps(asdict(result)), flush=True)
            found.append(result.auroc)
        mean = round(float(np.mean(found)), 4)
        print(json.dumps({"set": name, "detector": detector, "mean_auroc": mean}), flush=True)


if __name__ == "__main__":
    main()
