"""Statistics of one column that merge: moments, a sketch of quantiles, counts of values."""

import base64
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.cells import Bools, Cells
from models.columns import Categorical, FeatureColumn, Numeric, Port
from models.scaling import SMALLEST

# Rank error of a sketch: 0.14% of the rows, in 48 kB a column. 200, the library's default, errs by
# 1.3%, which moves the quartiles of a heavy-tailed column visibly. Exact up to this many rows.
KLL_K = 2048
# Slots of a vocabulary's sketch, as a power of two: exact up to 12,288 distinct values; above that
# a count errs by 0.02% of the rows at most, far below the rarest of the values that are kept.
VOCABULARY_LG = 14
LONGEST_TEXT = 256  # bytes; a longer value is never frequent enough to be worth its memory
CONSTANT = 1e-12  # a deviation below this share of the largest value is rounding


def vocabulary_size(column: FeatureColumn) -> int:
    """How many values get a code of their own; 0 for columns without a vocabulary."""
    match column:
        case Categorical():
            return column.max_values
        case Port():
            return column.top
        case _:
            return 0


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, merged by Chan, Golub & LeVeque (1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of (x - mean)²
    low: float = math.inf
    high: float = -math.inf

    def add(self, values: npt.NDArray[np.float64]) -> None:
        if len(values):
            mean = float(values.mean())
            squares = float(np.square(values - mean).sum())
            low, high = float(values.min()), float(values.max())
            self.merge(Moments(len(values), mean, squares, low, high))

    def merge(self, other: "Moments") -> None:
        count = self.count + other.count
        if not count:
            return
        gap = other.mean - self.mean
        self.squares += other.squares + gap * gap * (self.count * other.count / count)
        self.mean += gap * (other.count / count)
        self.count = count
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    @property
    def deviation(self) -> float:
        """Standard deviation of the population; 1 for a constant, which is never divided by 0."""
        if self.low >= self.high:
            return 1.0
        deviation = math.sqrt(self.squares / self.count)
        size = max(abs(self.low), abs(self.high))
        return deviation if deviation > max(CONSTANT * size, SMALLEST) else 1.0


@dataclass
class Statistics:
    """What one column's cells add up to. Numbers are counted after log1p where it is asked."""

    nulls: int = 0
    moments: Moments = field(default_factory=Moments)
    quantiles: Any = None  # kll_doubles_sketch, for robust and quantile scaling
    texts: Any = None  # frequent_strings_sketch, for columns with a vocabulary

    @classmethod
    def for_column(cls, column: FeatureColumn) -> "Statistics":
        statistics = cls()
        if isinstance(column, Numeric) and column.scale != "standard":
            statistics.quantiles = datasketches.kll_doubles_sketch(KLL_K)
        if vocabulary_size(column):
            slots = max(VOCABULARY_LG, math.ceil(math.log2(vocabulary_size(column))) + 2)
            statistics.texts = datasketches.frequent_strings_sketch(slots)
        return statistics

    def add(self, column: FeatureColumn, cells: Cells, good: Bools | None) -> None:
        """Count the cells of the rows that are good (None for all)."""
        present = good
        if cells.null is not None:
            self.nulls += int((cells.null if good is None else cells.null & good).sum())
            present = ~cells.null if good is None else good & ~cells.null
        if isinstance(column, Numeric):
            numbers = cells.inputs[0] if present is None else cells.inputs[0][present]
            if column.log1p:
                numbers = np.sign(numbers) * np.log1p(np.abs(numbers))
            self.moments.add(numbers)
            if self.quantiles is not None:
                # The sketch takes no read-only arrays, such as those that Arrow lends.
                self.quantiles.update(np.require(numbers, np.float64, ["C", "W"]))
        if self.texts is not None and cells.text is not None:
            indices, texts = cells.text
            chosen = indices if present is None else indices[present]
            counts = np.bincount(chosen, minlength=len(texts))
            short = np.asarray(
                pc.less_equal(pc.binary_length(texts), LONGEST_TEXT).fill_null(False)
            )
            used = np.flatnonzero((counts > 0) & short)
            for text, count in zip(
                texts.take(pa.array(used)).to_pylist(), counts[used], strict=True
            ):
                self.texts.update(text, int(count))

    def merge(self, other: "Statistics") -> None:
        self.nulls += other.nulls
        self.moments.merge(other.moments)
        if self.quantiles is not None:
            self.quantiles.merge(other.quantiles)
        if self.texts is not None:
            self.texts.merge(other.texts)

    def to_document(self) -> dict[str, Any]:
        moments = asdict(self.moments) if self.moments.count else None  # JSON has no infinity
        return {
            "nulls": self.nulls,
            "moments": moments,
            "quantiles": _to_text(self.quantiles),
            "texts": _to_text(self.texts),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Statistics":
        quantiles, texts = document["quantiles"], document["texts"]
        return cls(
            document["nulls"],
            Moments(**document["moments"]) if document["moments"] else Moments(),
            quantiles and datasketches.kll_doubles_sketch.deserialize(base64.b64decode(quantiles)),
            texts and datasketches.frequent_strings_sketch.deserialize(base64.b64decode(texts)),
        )

    @property
    def vocabulary(self) -> list[tuple[str, int]]:
        """Values and their counts, the most frequent first, ties by value."""
        kind = datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES
        counted = [(text, count) for text, count, _, _ in self.texts.get_frequent_items(kind, 0)]
        return sorted(counted, key=lambda item: (-item[1], item[0]))


def _to_text(sketch: Any) -> str | None:
    return None if sketch is None else base64.b64encode(sketch.serialize()).decode()
