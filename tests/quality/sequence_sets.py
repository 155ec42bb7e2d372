"""Public series, events and texts as batches: what a detector learns from and what it is asked.

Each follows the protocol of its row in `shared/data/README.md`. No label reaches training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from models.detector import Batch, Layout, SignalInput, TokenInput

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Windows that a detector learns from, drawn from all: each holds `steps` lessons, and neighbours
# share all but one.
TRAIN_WINDOWS = 2_000
TEXT_BYTES = 256  # bytes of a text that are read
HELD_BACK = 0.1  # share of the training rows that choose the epoch and calibrate


@dataclass(frozen=True)
class Task:
    """One thing to learn and to be asked about."""

    dataset: str
    name: str  # machine, channel, series; or the dataset again
    layout: Layout
    train: Batch
    held_back: Batch
    test: Batch
    anomalous: Bools  # [test rows]
    counted: Bools  # [test rows]; false where the protocol does not ask
    values: Floats | None = None  # [test rows] of a single series, for baselines on raw numbers


def batch_of(signals: tuple[torch.Tensor, ...], tokens: tuple[torch.Tensor, ...]) -> Batch:
    rows = len((*signals, *tokens)[0])
    none = torch.zeros(rows, 0)
    return Batch(none, none.long(), None, signals, tokens)


def windows(values: Floats, steps: int, rows: npt.NDArray[np.int64] | None = None) -> torch.Tensor:
    """The trailing windows [rows, channels + 1, steps] of a series [points, channels]: the last
    step is the row itself, the last channel says where there is data."""
    padded = np.pad(values, ((steps - 1, 0), (0, 0)))
    there = np.pad(np.ones((len(values), 1), np.float32), ((steps - 1, 0), (0, 0)))
    view = np.lib.stride_tricks.sliding_window_view(np.concatenate([padded, there], 1), steps, 0)
    return torch.from_numpy(np.ascontiguousarray(view if rows is None else view[rows]))


def scaled(train: Floats, *others: Floats) -> list[Floats]:
    """Each channel about zero mean and unit variance by the training part; constants by 1."""
    centre, width = train.mean(0), train.std(0)
    width = np.where(width > 1e-6, width, 1)
    return [((part - centre) / width).clip(-20, 20).astype(np.float32) for part in (train, *others)]


def series_task(
    dataset: str,
    name: str,
    train: Floats,
    test: Floats,
    anomalous: Bools,
    counted: Bools,
    steps: int,
    seed: int,
) -> Task:
    """Windows over a series; the held-back ones are the last of the training part."""
    learned, asked = scaled(train, test)
    rng = np.random.default_rng(seed)
    cut = int(len(learned) * (1 - HELD_BACK))
    chosen = np.sort(rng.permutation(cut)[:TRAIN_WINDOWS])
    held = np.sort(cut + rng.permutation(len(learned) - cut)[: TRAIN_WINDOWS // 4])
    channels = learned.shape[1] + 1
    signal = SignalInput("window", "series", (channels, steps), masked=True)
    return Task(
        dataset,
        name,
        Layout((), (), signals=(signal,)),
        batch_of((windows(learned, steps, chosen),), ()),
        batch_of((windows(learned, steps, held),), ()),
        batch_of((windows(asked, steps),), ()),
        anomalous,
        counted,
        test[:, 0] if test.shape[1] == 1 else None,
    )


def machines(
    dataset: str, key: str, leave: tuple[str, ...], steps: int, seed: int
) -> Iterator[Task]:
    """`smd` and `smap`: one model a machine or channel, trained on its own train split."""
    for folder in sorted((DATA / dataset / "split=train").iterdir()):
        parts = []
        for split in ("train", "test"):
            path = DATA / dataset / f"split={split}" / folder.name / "part-0.parquet"
            parts.append(pq.ParquetFile(path).read().to_pandas().sort_values("t"))
        train, test = (p.drop(columns=["t", *leave]).to_numpy(np.float32) for p in parts)
        anomalous = parts[1]["label"].to_numpy() == 1
        name = folder.name.removeprefix(f"{key}=")
        asked = np.ones(len(test), bool)
        yield series_task(dataset, name, train, test, anomalous, asked, steps, seed)


def smd(steps: int, seed: int) -> Iterator[Task]:
    yield from machines("smd", "machine_id", ("label",), steps, seed)


def smap(steps: int, seed: int) -> Iterator[Task]:
    yield from machines("smap", "channel_id", ("label", "anomaly_type"), steps, seed)


def nab(steps: int, seed: int) -> Iterator[Task]:
    """One model a series, trained on its probationary part, asked about all that follows."""
    for path in sorted((DATA / "nab").glob("family=*/part-0.parquet")):
        table = pq.ParquetFile(path).read().to_pandas()
        for name, rows in table.groupby("series", sort=True):
            values = rows["value"].to_numpy(np.float32)[:, None]
            probation = rows["is_probation"].to_numpy() == 1
            anomalous = rows["label"].to_numpy() == 1
            train = values[probation]
            yield series_task("nab", str(name), train, values, anomalous, ~probation, steps, seed)


def sms_spam(seed: int) -> Iterator[Task]:
    """NLP-ADBench: learn from 70% of ham; other ham and spam, thinned to 3.3%, are asked about."""
    table = pq.ParquetFile(DATA / "sms_spam" / "sms_spam.parquet").read().to_pandas()
    table = table.drop_duplicates("text")
    ham = table.loc[table["label"] == 0, "text"].tolist()
    spam = table.loc[table["label"] == 1, "text"].tolist()
    rng = np.random.default_rng(seed)
    spam = [spam[i] for i in rng.permutation(len(spam))[: round(len(ham) * 0.033 / 0.967)]]
    yield text_task("sms_spam", ham, spam, 0.7, rng)


def bgl_2k(seed: int) -> Iterator[Task]:
    """Learn from half of the normal lines; the others and all alerts are asked about."""
    table = pq.ParquetFile(DATA / "bgl_2k" / "bgl_2k.parquet").read().to_pandas()
    normal = table.loc[table["label"] == 0, "content"].tolist()
    alerts = table.loc[table["label"] == 1, "content"].tolist()
    yield text_task("bgl_2k", normal, alerts, 0.5, np.random.default_rng(seed))


def text_task(
    dataset: str, normal: list[str], odd: list[str], share: float, rng: np.random.Generator
) -> Task:
    order = rng.permutation(len(normal))
    cut = int(len(normal) * share)
    learned = [normal[i] for i in order[:cut]]
    asked = [normal[i] for i in order[cut:]] + odd
    anomalous = np.arange(len(asked)) >= len(asked) - len(odd)
    read = [
        codes([[b + 2 for b in text.encode()] for text in part], TEXT_BYTES)
        for part in (learned, asked)
    ]
    return token_task(dataset, read[0], read[1], anomalous, 258)


def hdfs_100k(seed: int) -> Iterator[Task]:
    """Learn from the normal sessions of train; the sessions of test are asked about."""
    folder = DATA / "hdfs_100k"
    train, test = (
        pq.ParquetFile(folder / f"{s}.parquet").read().to_pandas() for s in ("train", "test")
    )
    sessions = train.loc[train["label"] == 0, "events"].tolist()
    order = np.random.default_rng(seed).permutation(len(sessions))
    vocabulary: dict[str, int] = {}
    for session in sessions:
        for event in session:
            vocabulary.setdefault(event, len(vocabulary) + 2)
    learned = [[vocabulary[e] for e in sessions[i]] for i in order]
    asked = [[vocabulary.get(e, 1) for e in session] for session in test["events"]]
    anomalous = test["label"].to_numpy() == 1
    length = max(map(len, learned)) + 1
    yield token_task(
        "hdfs_100k", codes(learned, length), codes(asked, length), anomalous, len(vocabulary) + 2
    )


def token_task(
    dataset: str, learned: torch.Tensor, asked: torch.Tensor, anomalous: Bools, size: int
) -> Task:
    cut = int(len(learned) * (1 - HELD_BACK))
    return Task(
        dataset,
        dataset,
        Layout((), (), tokens=(TokenInput("text", size, asked.shape[1]),)),
        batch_of((), (learned[:cut],)),
        batch_of((), (learned[cut:],)),
        batch_of((), (asked,)),
        anomalous,
        np.ones(len(asked), bool),
    )


def codes(rows: list[list[int]], length: int) -> torch.Tensor:
    """Lists of codes as int64 [rows, length], cut or padded with 0."""
    filled: Any = np.zeros((len(rows), length), np.int64)
    for place, row in enumerate(rows):
        filled[place, : len(row)] = row[:length]
    return torch.from_numpy(filled)


SERIES_SETS = {"smd": smd, "smap": smap, "nab": nab}  # each by (steps of a window, seed)
TOKEN_SETS = {"sms_spam": sms_spam, "hdfs_100k": hdfs_100k, "bgl_2k": bgl_2k}  # by seed
