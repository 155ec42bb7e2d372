"""Counts of scores by size: the cheap, mergeable summary that a run keeps of its scores."""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A bin holds the float32 numbers with the same sign, exponent and 5 leading mantissa bits, so its
# width is 1/32 of its size. Counting takes 3 ns per row, a quantile sketch (`ScoreSketch`, which
# thresholds need) 49 ns, and the counts do not depend on the order of the scores.
_SHIFT = 18
_BINS = 1 << (32 - _SHIFT)
_SIGN = np.uint32(0x8000_0000)


class ScoreHistogram:
    """Counts of finite float32 scores, each known to within 1/32 of its size.

    `count`, `minimum` and `maximum` are exact.

    >>> histogram = ScoreHistogram()
    >>> histogram.update(np.array([0.5, 1.5, 2.5], np.float32))
    >>> histogram.count_between([0.0, 1.0, 3.0]).tolist()
    [1, 2]
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum = float("inf")
        self.maximum = float("-inf")
        self._bins: NDArray[np.int64] = np.zeros(_BINS, np.int64)

    def update(self, scores: NDArray[np.float32]) -> None:
        """Add finite scores, float32 [rows]."""
        if not len(scores):
            return
        bits = (scores + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
        # Bits in the order of the numbers: the bits of negative numbers are in reverse order.
        ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
        self._bins += np.bincount(ordered >> np.uint32(_SHIFT), minlength=_BINS)
        self.count += len(scores)
        self.minimum = min(self.minimum, float(scores.min()))
        self.maximum = max(self.maximum, float(scores.max()))

    def merge(self, other: Self) -> None:
        """Add the scores of another histogram, which stays as it is."""
        self._bins += other._bins
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)

    def accumulate(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Ascending edges of the bins that hold scores, and the exact number of scores below."""
        filled = np.flatnonzero(self._bins)
        edges = np.stack([_find_starts(filled), _find_starts(filled + 1)], 1).reshape(-1)
        below = np.concatenate([[0], np.cumsum(self._bins[filled])])
        return edges, np.repeat(below, 2)[1:-1]

    def count_between(self, edges: ArrayLike) -> NDArray[np.int64]:
        """Estimate the number of scores between neighbouring edges.

        `edges` ascend. The sum of the numbers is exact if the edges enclose all scores.
        """
        filled = np.flatnonzero(self._bins)
        starts = np.clip(_find_starts(filled), self.minimum, self.maximum)
        stops = np.clip(_find_starts(filled + 1), self.minimum, self.maximum)
        places = np.stack([starts, stops], 1).reshape(-1)
        below = np.repeat(np.concatenate([[0], np.cumsum(self._bins[filled])]), 2)[1:-1]
        wanted = np.asarray(edges, np.float64)
        cumulated = np.rint(np.interp(wanted, places, below, left=0, right=self.count))
        cumulated[wanted >= self.maximum] = self.count
        between: NDArray[np.int64] = np.diff(cumulated).astype(np.int64)
        return between

    def to_document(self) -> dict[str, Any]:
        filled = np.flatnonzero(self._bins)
        return {
            "count": self.count,
            "range": [self.minimum, self.maximum] if self.count else None,
            "bins": filled.tolist(),
            "counts": self._bins[filled].tolist(),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        histogram = cls()
        histogram.count = document["count"]
        if document["range"]:
            histogram.minimum, histogram.maximum = document["range"]
        histogram._bins[document["bins"]] = document["counts"]
        return histogram


def _find_starts(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """The smallest number of each bin."""
    ordered = (bins.astype(np.uint64) << np.uint64(_SHIFT)).clip(max=0xFFFF_FFFF).astype(np.uint32)
    bits = np.where(ordered & _SIGN, ordered & ~_SIGN, ~ordered)
    with np.errstate(invalid="ignore"):
        numbers = bits.astype(np.uint32).view(np.float32).astype(np.float64)
    largest = float(np.finfo(np.float32).max)
    return np.nan_to_num(numbers, nan=largest, posinf=largest, neginf=-largest)
