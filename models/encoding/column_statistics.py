"""Mergeable statistics of one column: moments, a sketch of quantiles, counts of values."""

import base64
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import Categorical, FeatureColumn, Numeric, Port, Sequence, SignalColumn
from models.decoding.scalars import Bools, Cells
from models.encoding.bins import Counts, count_bins, merge_bins
from models.encoding.moments import KLL_K, Moments
from models.encoding.signal_statistics import SignalStatistics
from models.schema import Source

# Slots of the sketch of a vocabulary, as a power of two. Counts are exact up to 12,288 distinct
# values; above, they are off by at most 0.02% of the rows, far less than any kept value has.
VOCABULARY_LG = 14
# Accuracy of a sketch that only gives the median of a reason: ranks are off by 1.3% of the rows.
MEDIAN_K = 200
LONGEST_TEXT = 256  # bytes; longer values are too rare to be worth their memory


def choose_vocabulary_size(source: Source) -> int:
    """The number of values with a code of their own; 0 for a column without a vocabulary."""
    match column := source.column:
        case Categorical():
            return column.max_values
        case Sequence():
            return column.max_values if source.has_events else 0
        case Port():
            return column.top
        case _:
            return 0


@dataclass
class Statistics:
    """Statistics of the cells of one column. If the column asks for log1p, of the logarithms."""

    nulls: int = 0
    moments: Moments = field(default_factory=Moments)
    quantiles: Any = None  # kll_doubles_sketch, for the median, robust and quantile scaling
    texts: Any = None  # frequent_strings_sketch, for columns with a vocabulary
    signal: SignalStatistics | None = None
    unnamed: int = 0  # values too long for the sketch of texts
    bins: list[Counts] = field(default_factory=list)  # of flags and times, see `bins`

    @classmethod
    def for_source(cls, source: Source) -> "Statistics":
        statistics, column = cls(), source.column
        if isinstance(column, Numeric):
            scaled = column.scale != "standard"
            statistics.quantiles = datasketches.kll_doubles_sketch(KLL_K if scaled else MEDIAN_K)
        if isinstance(column, SignalColumn):
            statistics.signal = SignalStatistics.for_column(column)
        if choose_vocabulary_size(source):
            slots = max(VOCABULARY_LG, math.ceil(math.log2(choose_vocabulary_size(source))) + 2)
            statistics.texts = datasketches.frequent_strings_sketch(slots)
        return statistics

    def add(self, column: FeatureColumn, cells: Cells, good: Bools | None) -> None:
        """Add the cells of the good rows, a mask [rows]; None for all rows."""
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
                # The sketch needs a writable array; arrays from Arrow are read-only.
                self.quantiles.update(np.require(numbers, np.float64, ["C", "W"]))
        self.bins = merge_bins(self.bins, count_bins(column, cells.inputs, present))
        if self.signal is not None:
            self.signal.add(column, cells, present)
        if self.texts is not None and cells.text is not None:
            if present is not None and cells.lengths is not None:
                present = np.repeat(present, cells.lengths)
            indices, texts = cells.text
            chosen = indices if present is None else indices[present]
            chosen = chosen[chosen >= 0]  # single events of a list may be null
            counts = np.bincount(chosen, minlength=len(texts))
            short = np.asarray(
                pc.less_equal(pc.binary_length(texts), LONGEST_TEXT).fill_null(False)
            )
            used = np.flatnonzero((counts > 0) & short)
            self.unnamed += int(counts[~short].sum())
            for text, count in zip(
                texts.take(pa.array(used)).to_pylist(), counts[used], strict=True
            ):
                self.texts.update(text, int(count))

    def merge(self, other: "Statistics") -> None:
        self.nulls += other.nulls
        self.unnamed += other.unnamed
        self.bins = merge_bins(self.bins, other.bins)
        self.moments.merge(other.moments)
        if self.quantiles is not None:
            self.quantiles.merge(other.quantiles)
        if self.texts is not None:
            self.texts.merge(other.texts)
        if self.signal is not None and other.signal is not None:
            self.signal.merge(other.signal)

    def to_document(self) -> dict[str, Any]:
        moments = asdict(self.moments) if self.moments.count else None  # JSON has no infinity
        return {
            "nulls": self.nulls,
            "moments": moments,
            "quantiles": _to_text(self.quantiles),
            "texts": _to_text(self.texts),
            "signal": self.signal and self.signal.to_document(),
            "unnamed": self.unnamed,
            "bins": [counts.tolist() for counts in self.bins],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Statistics":
        quantiles, texts = document["quantiles"], document["texts"]
        signal = document["signal"]
        return cls(
            document["nulls"],
            Moments(**document["moments"]) if document["moments"] else Moments(),
            quantiles and datasketches.kll_doubles_sketch.deserialize(base64.b64decode(quantiles)),
            texts and datasketches.frequent_strings_sketch.deserialize(base64.b64decode(texts)),
            signal and SignalStatistics.from_document(signal),
            document["unnamed"],
            [np.array(counts, np.int64) for counts in document["bins"]],
        )

    @property
    def vocabulary(self) -> list[tuple[str, int]]:
        """Values and their counts, the most frequent first, equal counts by value."""
        counted = [(text, count) for text, count, _, _ in self._list_texts()]
        return sorted(counted, key=lambda item: (-item[1], item[0]))

    def knows_all(self, size: int) -> bool:
        """Whether the `size` most frequent texts are all that there were."""
        found = self._list_texts()
        exact = all(lower == upper for _, _, lower, upper in found)  # else some were dropped
        return exact and not self.unnamed and len(found) <= size

    def _list_texts(self) -> list[tuple[str, int, int, int]]:
        """Each text of the sketch, with its count and the bounds of it."""
        kind = datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES
        return list(self.texts.get_frequent_items(kind, 0))


def _to_text(sketch: Any) -> str | None:
    return None if sketch is None else base64.b64encode(sketch.serialize()).decode()
