"""A mergeable summary of many scores: exact in the upper tail, close below it.

Thresholds and severities lie in the upper tail. The largest scores are therefore kept as they are,
and the others go into a quantile sketch with a relative error.
"""

import base64
import binascii
from typing import Any, Self

import numpy as np
from datasketches import req_floats_sketch
from numpy.typing import ArrayLike, NDArray

from models.refusal import Refusal

# Scores kept exactly: a contamination of 0.001 is exact up to 4 million rows, in 16 KB.
TAIL = 4096

# Accuracy of the REQ sketch: rows above a score are off by 0.2% (docs/decisions/score-sketch.md).
BODY_K = 32

FORMAT = 1


class NonFiniteScore(Refusal):
    """A score is NaN or infinite. One NaN in a calibration would silently flag no row at all."""


class ScoreSketch:
    """A summary of float32 scores that merges in any order and grouping.

    `count`, `minimum`, `maximum` and `tail` are exact, and so is every answer about the largest
    4,096 scores. Below the tail, a number of rows above a score is within about 0.2% of the true
    number (see `BODY_K`).

    >>> sketch = ScoreSketch()
    >>> sketch.update([0.1, 0.2, 0.3, 0.9])
    >>> int(sketch.count_above(0.25)), round(sketch.quantile(0.75), 3)
    (2, 0.3)
    """

    def __init__(self) -> None:
        self.count = 0
        self._tail: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._body = req_floats_sketch(BODY_K, True)
        self._grid_cache: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    @property
    def tail(self) -> NDArray[np.float32]:
        """The largest scores, at most 4,096, in descending order: float32 [rows]."""
        return self._tail.copy()

    @property
    def minimum(self) -> float:
        self._need_rows()
        return float(self._body.get_min_value())

    @property
    def maximum(self) -> float:
        self._need_rows()
        return float(self._tail[0])

    def update(self, scores: ArrayLike) -> None:
        """Add scores, [rows]. Raises NonFiniteScore, and adds none, if one is not finite."""
        with np.errstate(over="ignore"):  # a float64 that overflows is refused below
            # A copy: the library needs a writable, contiguous array.
            fresh = np.array(scores, dtype=np.float32, order="C").reshape(-1)
        finite = np.isfinite(fresh)
        if not finite.all():
            raise NonFiniteScore(
                f"expected finite scores; {fresh.size - int(finite.sum()):,} of {fresh.size:,} are "
                f"NaN, infinite or over the float32 range, the first at row "
                f"{int(np.argmin(finite))}; look for a diverged training or unchecked input"
            )
        if fresh.size == 0:
            return
        fresh += np.float32(0)  # -0.0 becomes 0.0, so that equal scores have equal bytes
        self._body.update(fresh)
        self._keep_largest(fresh)
        self.count += fresh.size
        self._grid_cache = None

    def merge(self, other: "ScoreSketch") -> None:
        """Add the scores of another sketch, which does not change."""
        if other.count == 0:
            return
        self._body.merge(other._body)
        self._keep_largest(other._tail)
        self.count += other.count
        self._grid_cache = None

    def count_above(self, value: ArrayLike) -> NDArray[np.int64]:
        """The number of scores strictly above each value, int64 in the shape of `value`.

        Exact for values in the tail and below the minimum.
        """
        self._need_rows()
        values, rows = self._grid
        place = np.searchsorted(values, np.asarray(value, dtype=np.float64), side="right")
        return np.concatenate(([self.count], rows))[place]

    def count_at_least(self, value: ArrayLike) -> NDArray[np.int64]:
        """The number of scores at or above each value, int64 in the shape of `value`."""
        self._need_rows()
        values, rows = self._grid
        place = np.searchsorted(values, np.asarray(value, dtype=np.float64), side="left")
        return np.concatenate(([self.count], rows))[place]

    def cut(self, rows: float) -> float:
        """The smallest known score with at most `rows` scores strictly above it.

        Exact for `rows` below 4,096. Equal scores are all above the cut, or none of them is. The
        lowest cut is the minimum, so at least one score is never above it.
        """
        self._need_rows()
        # 0.0003 * 10_000 is 2.9999999999999996 in floating point, but 3 is meant.
        allowed = int(np.floor(rows + 1e-6))
        if allowed < 0:
            raise Refusal(f"expected a number of rows of 0 or more; found {rows}")
        values, above = self._grid
        return float(values[int(np.argmax(above <= allowed))])

    def quantile(self, q: float) -> float:
        """The smallest known score with a share of at least `q` of all scores at or below it."""
        if not 0 <= q <= 1:
            raise Refusal(f"expected a quantile between 0 and 1; found {q}")
        return self.cut((1 - q) * self.count)

    def values(self) -> NDArray[np.float32]:
        """The distinct scores that the sketch holds, ascending. It holds every one of the tail."""
        self._need_rows()
        return self._grid[0].copy()

    def histogram(
        self, bins: int | NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges, [bins + 1], and rows, [bins], like `numpy.histogram`.

        `bins` is a number of equal bins from the minimum to the maximum, or the edges. A bin holds
        the scores above its lower edge, up to and including its upper edge; the first bin also
        holds its lower edge.
        """
        if isinstance(bins, int):
            low, high = self.minimum, self.maximum
            if low == high:
                low, high = low - 0.5, high + 0.5
            edges = np.linspace(low, high, bins + 1)
        else:
            edges = np.asarray(bins, dtype=np.float64)
        rows = self.count_above(edges)
        rows[0] = self.count_at_least(edges[0])
        return edges, rows[:-1] - rows[1:]

    def to_document(self) -> dict[str, Any]:
        """The sketch as a JSON object of numbers and base64 text, about 50 KB if it is full."""
        if self.count:
            # A query sorts the buffers: the bytes are then the same before and after any query.
            self._body.get_quantile(0.5)
        return {
            "format": FORMAT,
            "count": self.count,
            "tail": base64.b64encode(self._tail.astype("<f4").tobytes()).decode(),
            "body": base64.b64encode(self._body.serialize()).decode(),
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The sketch that `to_document` wrote. Raises Refusal for any other document."""
        sketch = cls()
        try:
            if document["format"] != FORMAT:
                raise Refusal(f"expected a score sketch of format {FORMAT}; found another")
            sketch.count = int(document["count"])
            raw = base64.b64decode(document["tail"], validate=True)
            sketch._tail = np.frombuffer(raw, dtype="<f4").astype(np.float32)
            body = base64.b64decode(document["body"], validate=True)
            sketch._body = req_floats_sketch.deserialize(body)
            consistent = sketch._is_consistent()
        except Refusal:
            raise
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError, binascii.Error) as error:
            raise Refusal(f"expected a score sketch; it cannot be read ({error})") from error
        if not consistent:
            raise Refusal("expected a score sketch; its counts, tail and body do not agree")
        return sketch

    @property
    def _grid(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The distinct known scores, ascending, and the number of rows strictly above each."""
        if self._grid_cache is None:
            ascending = self._tail[::-1]
            floor = ascending[0]
            below = [(value, weight) for value, weight in self._body if value < floor]
            body, rows = self._estimate(below)
            exact, first = np.unique(ascending, return_index=True)
            last = np.concatenate((first[1:], [ascending.size])).astype(np.int64)
            self._grid_cache = (
                np.concatenate((body, exact)),
                np.concatenate((rows, ascending.size - last)),
            )
        return self._grid_cache

    def _estimate(
        self, weighted: list[tuple[float, int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distinct scores below the tail, ascending, and the estimated rows above each."""
        pairs = np.array([*weighted, (self.minimum, 0)], dtype=np.float64)
        values, inverse = np.unique(pairs[:, 0].astype(np.float32), return_inverse=True)
        if values[-1] >= self._tail[-1]:  # the minimum is in the tail: no score lies below
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        upto = np.cumsum(np.bincount(inverse, weights=pairs[:, 1])).astype(np.int64)
        # The whole tail is above, and the minimum itself is not.
        return values, np.clip(self.count - upto, self._tail.size, self.count - 1)

    def _keep_largest(self, fresh: NDArray[np.float32]) -> None:
        if self._tail.size == TAIL:
            fresh = fresh[fresh > self._tail[-1]]
        joined = np.concatenate((self._tail, fresh))
        if joined.size > TAIL:
            joined = np.partition(joined, joined.size - TAIL)[joined.size - TAIL :]
        self._tail = np.sort(joined)[::-1].copy()

    def _is_consistent(self) -> bool:
        size = self._tail.size
        if self.count < 0 or size != min(self.count, TAIL) or self._body.n != self.count:
            return False
        if self.count == 0:
            return True
        return bool(
            np.isfinite(self._tail).all()
            and (self._tail[:-1] >= self._tail[1:]).all()
            and self._body.get_max_value() == self._tail[0]
            and np.isfinite(self._body.get_min_value())
            and self._body.get_min_value() <= self._tail[-1]
        )

    def _need_rows(self) -> None:
        if self.count == 0:
            raise Refusal("expected a sketch of at least one score; found none")
