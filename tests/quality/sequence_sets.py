"""Public series as batches: what a detector learns from and what it is asked.

Each follows the protocol of its row in `shared/data/README.md`. No label reaches training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch

from models.batch import Batch
from models.layout import Layout, SignalInput
from tests.public_sets import DATA

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Windows that a detector learns from, drawn from all: each holds `steps` lessons, and neighbours
# share all but one.
TRAIN_WINDOWS = 2_000
HELD_BACK = 0.1  # share of the training rows that choose the epoch and calibrate


@dataclass(frozen=True)
class Task:
    """One thing to learn and to be asked about."""

    dataset: str
    name: str  # machine, channel, series
    layout: Layout
    train: Batch
    held_back: Batch
    test: Batch
    anomalous: Bools  # [test rows]
    counted: Bools  # [test rows]; false where the protocol does not ask
    values: Floats | None = None  # [test rows] of a single series, for baselines on raw numbers


def batch_of(windows: torch.Tensor) -> Batch:
    none = torch.zeros(len(windows), 0)
    return Batch(none, none.long(), None, (windows,))


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
        batch_of(windows(learned, steps, chosen)),
        batch_of(windows(learned, steps, held)),
        batch_of(windows(asked, steps)),
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


SERIES_SETS = {"smd": smd, "smap": smap, "nab": nab}  # each by (steps of a window, seed)
