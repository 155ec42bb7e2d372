"""What a protocol is: how the rows of a labelled set become a training table and a test table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.columns import FeatureColumn
from tests.public_sets import DATA

# Detectors that are measured on such columns unless others are asked for: those that suit them, the
# quickest first. No label reaches any of them.
ON_TABLES = (
    *("ecod", "gaussian", "isolation_forest", "knn", "pca"),
    *("autoencoder", "variational_autoencoder", "diffusion_time"),
)
ON_EMBEDDINGS = ("gaussian", "isolation_forest", "knn", "pca", "autoencoder", "diffusion_time")
ON_SIGNALS = ("gaussian", "hog_knn", "knn", "pca", "convolutional_autoencoder", "deep_svdd")
ON_TOKENS = ("gaussian", "knn", "pca", "forecaster", "recurrent_autoencoder")


class Trial(NamedTuple):
    """One draw of a protocol. Labels leave the tables here: no detector can see them."""

    train: pa.Table  # rows to learn from
    test: pa.Table  # rows to score, with the same columns
    labels: NDArray[np.int8]  # of the test rows; 1 is an anomaly
    columns: tuple[FeatureColumn, ...]
    flagged: float | None = None  # share of the test rows that the protocol's F1 takes as flagged


@dataclass(frozen=True)
class Protocol:
    """A set and the way it is cut. The same seed draws the same trial."""

    name: str  # as `baselines.csv` names the set
    source: str  # file or folder under the data folder
    draw: Callable[[Path, int], Trial]  # (file or folder, seed)
    about: str  # one line for the report
    detectors: tuple[str, ...]  # that suit its columns

    @property
    def family(self) -> str:
        """The set that it is a task of: `fashion_mnist` of `fashion_mnist/coat`."""
        return self.name.partition("/")[0]

    def available(self, data: Path = DATA) -> bool:
        """Whether the set is there: the data folder is no part of the repository."""
        return (data / self.source).exists()

    def trial(self, seed: int, data: Path = DATA) -> Trial:
        return self.draw(data / self.source, seed)


def labels_of(rows: pa.Table, label: str = "label") -> NDArray[np.int8]:
    found: NDArray[np.int8] = rows.column(label).to_numpy().astype(np.int8)
    return found


def one_class(
    rows: pa.Table,
    learned: NDArray[np.bool_],
    columns: tuple[FeatureColumn, ...],
) -> Trial:
    """Learn from the rows where `learned` is true and score all others."""
    features = [column.name for column in columns]
    test = rows.filter(pa.array(~learned))
    return Trial(
        rows.filter(pa.array(learned)).select(features),
        test.select(features),
        labels_of(test),
        columns,
    )


def first_half_of_normal(labels: NDArray[np.int8]) -> NDArray[np.bool_]:
    """The first half, rounded, of the normal rows in the order given."""
    normal = np.flatnonzero(labels == 0)
    learned = np.zeros(len(labels), bool)
    learned[normal[: round(len(normal) / 2)]] = True
    return learned


def random_half_of_normal(labels: NDArray[np.int8], seed: int) -> NDArray[np.bool_]:
    """A random half of the normal rows."""
    normal = np.random.default_rng(seed).permutation(np.flatnonzero(labels == 0))
    learned = np.zeros(len(labels), bool)
    learned[normal[: len(normal) // 2]] = True
    return learned
