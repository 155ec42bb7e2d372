"""A mergeable summary of many scores: exact in its upper tail, close below it.

Thresholds and severities live in the upper tail, so the largest scores are kept as they are and
the rest goes into a relative-error quantile sketch.
"""

import base64
import binascii
import json
from typing import Any, Self

import numpy as np
from datasketches import req_floats_sketch
from numpy.typing import ArrayLike, NDArray

from models import canonical_json
from models.refusal import Refusal

# Largest scores kept exactly: a contamination of 0.001 is exact up to 4 million rows, for 16 KB.
TAIL = 4096

# REQ (Cormode et al., PODS 2021, high-rank accuracy), not KLL: KLL's error is a share of all rows,
# REQ's a share of the rows above. Measured on 4 million log-normal scores merged from 40 sketches,
# rows above the 1 - 0.0001 quantile: KLL k=2048 is off by -80% (24 KB), REQ k=12 by 0.5% (8 KB),
# k=32 by 0.2% (19 KB), k=64 by 0.2% (33 KB). Updates: 40, 48 and 57 ns a row; KLL takes 42.
BODY_K = 32

FORMAT = 1

# A full sketch is about 50 KB as JSON; nothing that we wrote comes near this.
MAX_BYTES = 1 << 20


class NonFiniteScore(Refusal):
    """A score is NaN or infinite: one NaN in a calibration would silently flag nothing at all."""


class ScoreSketch:
    """Counts of scores, mergeable in any order and grouping.

    Scores are float32. `count`, `minimum`, `maximum` and `tail` are exact, and so is every answer
    about the largest 4,096 scores; all answers are exact while there are at most that many. Below
    the tail, a number of rows above is within about 0.2% of itself (see `BODY_K`).
    """

    def __init__(self) -> None:
        self.count = 0
        self._tail: NDArray[np.float32] = np.empty(0, dtype=np.float32)
        self._body = req_floats_sketch(BODY_K, True)
        self._grid_cache: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None

    @property
    def tail(self) -> NDArray[np.float32]:
        """The largest scores, at most 4,096, in descending order."""
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
        """Add scores, [rows]. Raises `NonFiniteScore`, and adds none, when one is not finite."""
        with np.errstate(over="ignore"):  # a float64 that overflows is refused below
            # A copy: the library takes neither read-only nor other than contiguous arrays.
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
        """Add the scores of another sketch, which stays as it is."""
        if other.count == 0:
            return
        self._body.merge(other._body)
        self._keep_largest(other._tail)
        self.count += other.count
        self._grid_cache = None

    def count_above(self, value: ArrayLike) -> NDArray[np.int64]:
        """Number of scores strictly above each value, int64 of the shape of `value`.

        Exact from the smallest score of the tail upwards, and below the minimum.
        """
        self._need_rows()
        values, rows = self._grid
        place = np.searchsorted(values, np.asarray(value, dtype=np.float64), side="right")
        return np.concatenate(([self.count], rows))[place]

    def count_at_least(self, value: ArrayLike) -> NDArray[np.int64]:
        """Number of scores at or above each value, int64 of the shape of `value`."""
        self._need_rows()
        values, rows = self._grid
        place = np.searchsorted(values, np.asarray(value, dtype=np.float64), side="left")
        return np.concatenate(([self.count], rows))[place]

    def fraction_above(self, value: float) -> float:
        """Share of the scores that are strictly above `value`."""
        return int(self.count_above(value)) / self.count

    def cut(self, rows: float) -> float:
        """The smallest known score with at most `rows` scores strictly above it.

        Exact for `rows` < 4,096. Of many equal scores all are above the cut or none is. At least
        the minimum is returned, so that one score is never above.
        """
        self._need_rows()
        # 1e-6 rows: 0.0003 * 10_000 is 2.9999999999999996 in floating point, and means 3.
        allowed = int(np.floor(rows + 1e-6))
        if allowed < 0:
            raise Refusal(f"expected a number of rows of 0 or more; found {rows}")
        values, above = self._grid
        return float(values[int(np.argmax(above <= allowed))])

    def quantile(self, q: float) -> float:
        """The smallest known score with a share of at least `q` of the scores at or below it."""
        if not 0 <= q <= 1:
            raise Refusal(f"expected a quantile between 0 and 1; found {q}")
        return self.cut((1 - q) * self.count)

    def values(self) -> NDArray[np.float32]:
        """Distinct scores that the sketch knows of, ascending: all of them in the tail."""
        self._need_rows()
        return self._grid[0].copy()

    def histogram(
        self, bins: int | NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Edges [bins + 1] and rows [bins], as `numpy.histogram`: equal bins, or the edges given.

        A bin holds the scores above its lower edge up to and with its upper edge; the first one
        also holds its lower edge. Equal bins reach from the minimum to the maximum, and hold all.
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
        """The sketch as a JSON object of numbers and base64 text."""
        if self.count:
            # Sorts its buffers: without, a sketch has other bytes before a query than after it.
            self._body.get_quantile(0.5)
        return {
            "format": FORMAT,
            "count": self.count,
            "tail": base64.b64encode(self._tail.astype("<f4").tobytes()).decode(),
            "body": base64.b64encode(self._body.serialize()).decode(),
        }

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """The sketch of `to_document`. Raises `Refusal` for anything else."""
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

    def to_bytes(self) -> bytes:
        """Canonical JSON of `to_document`; about 50 KB when full."""
        return canonical_json.encode(self.to_document(), ascii_only=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The sketch of `to_bytes`. Raises `Refusal` for anything else."""
        if len(data) > MAX_BYTES:
            raise Refusal(f"expected a score sketch of at most {MAX_BYTES:,} bytes")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refusal(f"expected a score sketch; it is not JSON ({error})") from error
        return cls.from_document(document)

    @property
    def _grid(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distinct known scores, ascending, and the number of rows strictly above each."""
        if self._grid_cache is None:
            ascending = self._tail[::-1]
            floor = ascending[0]
            below = [(value, weight) for value, weight in self._body if value < floor]
            body, rows = self._estimates(below)
            exact, first = np.unique(ascending, return_index=True)
            last = np.concatenate((first[1:], [ascending.size])).astype(np.int64)
            self._grid_cache = (
                np.concatenate((body, exact)),
                np.concatenate((rows, ascending.size - last)),
            )
        return self._grid_cache

    def _estimates(
        self, weighted: list[tuple[float, int]]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distinct scores below the tail, ascending, and an estimate of the rows above each."""
        pairs = np.array([*weighted, (self.minimum, 0)], dtype=np.float64)
        values, inverse = np.unique(pairs[:, 0].astype(np.float32), return_inverse=True)
        if values[-1] >= self._tail[-1]:  # the minimum belongs to the tail: nothing lies below
            return np.empty(0, dtype=np.float32), np.empty(0, dtype=np.int64)
        upto = np.cumsum(np.bincount(inverse, weights=pairs[:, 1])).astype(np.int64)
        # At least the minimum itself is not above; at least the whole tail is.
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
