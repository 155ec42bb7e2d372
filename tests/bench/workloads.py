"""The benchmark's data: network flows in Parquet, the same for every contender.

Each file is drawn from its own seed, so that a lake of 64 million rows begins with the lake of 8
million. Four numbers of the numbers in about 1% of the rows are far out: those are the anomalies.
"""

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY = "2026-01-05"
TRAINING_DAY = "2026-01-04"
PROTOCOLS = ("tcp", "udp", "icmp")
SERVICES = (
    *("http", "https", "dns", "ssh", "smtp", "ftp", "ntp", "imap", "ldap", "rdp", "smb", "other"),
)
NUMBERS = tuple(f"f{n:02}" for n in range(16))
HOSTS = 20_000  # distinct addresses of a network
ANOMALIES = 0.01
_FAR = 4  # numbers that are far out in an anomalous row
_ROW_GROUPS = 2
_SEED = 20260105


@dataclass(frozen=True)
class Model:
    """The autoencoder of a workload, and what it is trained on."""

    name: str
    widths: tuple[int, ...]
    latent: int
    rows: int  # of the training day


# 16 numbers and 3 + 12 categories, each with a code for "other" and one for null: 35 inputs.
DENSE = Model("dense", (64, 32), 8, 400_000)
# A wide autoencoder is what is compute-bound, with 130 times the arithmetic a row. On the columns
# of the others, so that the same loops can score it.
WIDE = Model("wide", (1024, 512), 64, 100_000)
_LEAST_TRAINING = 20_000


@dataclass(frozen=True)
class Workload:
    """A day of flows: its size, how it is cut into files, and the model that scores it."""

    name: str
    rows: int
    files: int
    model: Model = DENSE

    @property
    def folder(self) -> str:
        return f"flows-{self.rows}-{self.files}"

    def scaled(self, scale: float) -> "Workload":
        """The same with a share of the rows, and a model that is trained on fewer."""
        if scale == 1:
            return self
        trained = max(_LEAST_TRAINING, round(self.model.rows * scale))
        model = replace(self.model, rows=min(self.model.rows, trained))
        return replace(self, rows=max(self.files, round(self.rows * scale)), model=model)


W1 = Workload("W1", 8_000_000, 32)
W2 = Workload("W2", 200_000, 4)
W3 = Workload("W3", 4_000_000, 16, WIDE)
W4 = tuple(Workload(f"W4-{m}M", m * 1_000_000, 4 * m) for m in (1, 4, 16, 64))
W5 = Workload("W5", 8_000_000, 2_000)
BY_NAME = {w.name: w for w in (W1, W2, W3, *W4, W5)}


def training(model: Model) -> Workload:
    """The day that a model is trained on."""
    return Workload("training", model.rows, 4)


def write(folder: Path, workload: Workload, day: str = DAY) -> Path:
    """The workload's lake below the folder, written once; its `day=` partition is in it."""
    target = folder / workload.folder
    done = target / "_written"
    if done.exists():
        return target
    shutil.rmtree(target, ignore_errors=True)
    (target / f"day={day}").mkdir(parents=True)
    rows = np.diff(np.linspace(0, workload.rows, workload.files + 1).astype(int)).tolist()
    first = np.concatenate([[0], np.cumsum(rows)])[:-1].tolist()
    with ProcessPoolExecutor() as processes:
        numbers = range(workload.files)
        list(processes.map(partial(_file, target / f"day={day}", day), numbers, first, rows))
    done.touch()
    return target


def _file(folder: Path, day: str, number: int, first: int, rows: int) -> None:
    table = flows(day, number, first, rows)
    pq.write_table(
        table,
        folder / f"part-{number:05}.parquet",
        compression="zstd",
        row_group_size=-(-rows // _ROW_GROUPS),
    )


def flows(day: str, number: int, first: int, rows: int) -> pa.Table:
    """Rows of one file: `first` is the id of the first, the rest follows from day and number."""
    rng = np.random.default_rng([_SEED, int(day.replace("-", "")), number])
    # Six latent causes and noise: an autoencoder with a bottleneck has something to learn.
    causes = rng.standard_normal((rows, 6), np.float32)
    mixing = np.random.default_rng(_SEED).standard_normal((6, len(NUMBERS))).astype(np.float32)
    values = 0.6 * causes @ mixing + 0.3 * rng.standard_normal((rows, len(NUMBERS)), np.float32)
    anomalous = np.flatnonzero(rng.random(rows) < ANOMALIES)
    far = rng.integers(0, len(NUMBERS), (len(anomalous), _FAR))
    values[anomalous[:, None], far] += rng.choice([-6, 6], far.shape).astype(np.float32)
    values = np.expm1(np.abs(values)) * np.sign(values)  # heavy tails on both sides
    start = np.datetime64(f"{day}T00:00:00", "us").astype(np.int64)
    seconds = np.sort(rng.integers(0, 86_400_000_000, rows))
    columns: dict[str, pa.Array] = {
        "id": pa.array(np.arange(first, first + rows, dtype=np.int64)),
        "ts": pa.array(start + seconds).cast(pa.timestamp("us")),
        "src": _addresses(rng, rows, 10),
        "dst": _addresses(rng, rows, 172),
        "proto": _category(rng, rows, PROTOCOLS),
        "service": _category(rng, rows, SERVICES),
    }
    columns |= {name: pa.array(values[:, j].copy()) for j, name in enumerate(NUMBERS)}
    return pa.table(columns)


def _category(rng: np.random.Generator, rows: int, names: tuple[str, ...]) -> pa.Array:
    shares = 1 / np.arange(1, len(names) + 1)
    codes = rng.choice(len(names), rows, p=shares / shares.sum()).astype(np.int32)
    return pa.DictionaryArray.from_arrays(codes, list(names)).cast(pa.string())


def _addresses(rng: np.random.Generator, rows: int, network: int) -> pa.Array:
    hosts = rng.integers(0, HOSTS, rows).astype(np.int32)
    texts = [f"{network}.16.{h // 250}.{h % 250 + 1}" for h in range(HOSTS)]
    return pa.DictionaryArray.from_arrays(hosts, texts).cast(pa.string())


def spec(
    source: Path | str, training: Path | str, target: Path | str, model: Model = DENSE
) -> dict[str, Any]:
    """The watch over a workload, as the document of a spec: 16 standardised numbers and two
    one-hot categories through the model's autoencoder, about 1% flagged."""
    columns: dict[str, Any] = {
        "id": {"role": "id"},
        "ts": {"role": "time"},
        "src": {"role": "keep"},
        "dst": {"role": "keep"},
        "proto": {"role": "categorical"},
        "service": {"role": "categorical"},
    }
    columns |= {name: {"role": "numeric"} for name in NUMBERS}
    return {
        "name": "flows",
        "input": {"uri": str(source), "partition": "day"},
        "columns": columns,
        "detector": {
            "name": "autoencoder",
            "widths": list(model.widths),
            "latent": model.latent,
        },
        "training": {"uri": str(training), "epochs": 3, "batch_rows": 2048, "baselines": []},
        "threshold": {"policy": "quantile", "contamination": ANOMALIES},
        "output": {"uri": str(target)},
    }
