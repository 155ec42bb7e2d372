"""How often training had each answer of a flag, each hour and each weekday, for reasons."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.columns import Boolean, FeatureColumn, IPAddress, Port, Timestamp
from models.decoding.scalars import Bools, Values
from models.layout import NumericInput

Counts = npt.NDArray[np.int64]
HOURS, WEEKDAYS = 24, 7
_MINUTES = 1440


def list_binned(column: FeatureColumn, inputs: Sequence[NumericInput]) -> list[str]:
    """The features of a column that are counted, in the order of `count_bins`."""
    match column:
        case Timestamp():
            return [one.name.removesuffix(" (sin)") for one in inputs[::2]]
        case Boolean() | IPAddress() | Port():
            return [one.name for one in inputs]
    return []


def count_bins(column: FeatureColumn, inputs: Sequence[Values], kept: Bools | None) -> list[Counts]:
    """The rows of each bin, of each feature that is counted: no and yes of a flag, hours from
    midnight UTC, weekdays from Monday. `kept` is the mask of the rows to count; None for all."""
    given = [one if kept is None else one[kept] for one in inputs]
    match column:
        case Timestamp():
            sizes = (WEEKDAYS,) if len(given) == 2 else (HOURS, WEEKDAYS)
            waves = zip(given[::2], given[1::2], sizes, strict=True)
            return [_count(_find_bins(sine, cosine, size), size) for sine, cosine, size in waves]
        case Boolean() | IPAddress() | Port():
            return [_count(np.asarray(one) >= 0.5, 2) for one in given]
    return []


def merge_bins(ours: list[Counts], theirs: list[Counts]) -> list[Counts]:
    if not ours or not theirs:
        return ours or theirs
    return [mine + other for mine, other in zip(ours, theirs, strict=True)]


def find_run(counts: Sequence[int], share: float) -> tuple[int, int, int]:
    """The shortest run of neighbouring bins, around the circle, that holds this share of the rows:
    its first bin, its bins, its rows.

    >>> find_run([0, 5, 90, 5, 0, 0, 0], 0.9)
    (2, 1, 90)
    """
    size, total = len(counts), sum(counts)
    twice = np.cumsum([0, *counts, *counts])
    for bins in range(1, size):
        rows = twice[bins : bins + size] - twice[:size]
        first = int(rows.argmax())
        if rows[first] >= share * total:
            return first, bins, int(rows[first])
    return 0, size, total


def _find_bins(sine: Values, cosine: Values, size: int) -> npt.NDArray[np.int64]:
    turns = np.arctan2(sine, cosine) / (2 * np.pi)
    if size == WEEKDAYS:
        return np.asarray(np.rint(turns * size), np.int64) % size
    return np.asarray(np.rint(turns * _MINUTES), np.int64) % _MINUTES // (_MINUTES // size)


def _count(bins: npt.NDArray[np.generic], size: int) -> Counts:
    return np.bincount(np.asarray(bins, np.int64), minlength=size)
