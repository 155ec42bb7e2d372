"""Mergeable statistics of a signal: moments of elements, bands or channels, and lengths."""

import base64
import math
from dataclasses import dataclass, field
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt

from models.columns import FeatureColumn, Image, Sequence, Vector, Video
from models.decoding.images import is_coloured, to_grey
from models.decoding.lists import select_steps
from models.decoding.scalars import Bools, Cells
from models.encoding.moments import KLL_K, ArrayMoments

# Widths of a vector column that are counted separately. A column has one width, apart from a few
# odd rows; with more widths, the rarest are dropped.
MOST_WIDTHS = 8
LONGEST = 512  # most steps of a length that is learned: attention takes their square of memory
USUAL = 0.95  # share of the rows that fit the learned length


@dataclass
class SignalStatistics:
    """Statistics of the signal of one column.

    The shape is known only at the end, so there are moments for each possible shape. The key is the
    width of a vector, or the channels of an image or a series; 0 if there is only one shape.
    """

    moments: dict[int, ArrayMoments] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # rows with a signal of that shape
    lengths: Any = None  # kll_doubles_sketch, for sequences
    padded: int = 0  # rows of a sequence with missing steps
    coloured: int = 0  # rows of images with a colour

    @classmethod
    def for_column(cls, column: FeatureColumn) -> "SignalStatistics":
        statistics = cls()
        if isinstance(column, Sequence):
            statistics.lengths = datasketches.kll_doubles_sketch(KLL_K)
        return statistics

    def add(self, column: FeatureColumn, cells: Cells, present: Bools | None) -> None:
        """Add the present rows, a mask [rows]; None for all rows."""
        chosen = slice(None) if present is None else present
        if cells.lengths is not None:
            self._add_list(column, cells, cells.lengths, present)
        elif cells.signal is not None:
            signal = cells.signal[chosen]
            if isinstance(column, Image | Video):
                self._add_images(signal)
            else:
                self._count(0, ArrayMoments.from_values(signal), len(signal))

    def merge(self, other: "SignalStatistics") -> None:
        for shape, moments in other.moments.items():
            self._count(shape, moments, other.rows[shape])
        if self.lengths is not None:
            self.lengths.merge(other.lengths)
        self.padded += other.padded
        self.coloured += other.coloured

    @property
    def most_frequent(self) -> int:
        """The shape of most rows, the smaller one of a tie; 0 if there were no rows."""
        return min(self.rows, key=lambda shape: (-self.rows[shape], shape), default=0)

    @property
    def length(self) -> int:
        """The steps that most sequences fit in: at least 1, at most LONGEST."""
        if self.lengths.is_empty():
            return 1
        return max(1, min(LONGEST, math.ceil(float(self.lengths.get_quantile(USUAL, True)))))

    def to_document(self) -> dict[str, Any]:
        lengths = self.lengths and base64.b64encode(self.lengths.serialize()).decode()
        return {
            "moments": {str(shape): part.to_document() for shape, part in self.moments.items()},
            "rows": {str(shape): rows for shape, rows in self.rows.items()},
            "lengths": lengths,
            "padded": self.padded,
            "coloured": self.coloured,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "SignalStatistics":
        lengths = document["lengths"]
        return cls(
            {int(k): ArrayMoments.from_document(v) for k, v in document["moments"].items()},
            {int(shape): rows for shape, rows in document["rows"].items()},
            lengths and datasketches.kll_doubles_sketch.deserialize(base64.b64decode(lengths)),
            document["padded"],
            document["coloured"],
        )

    def _add_list(
        self,
        column: FeatureColumn,
        cells: Cells,
        lengths: npt.NDArray[np.int64],
        present: Bools | None,
    ) -> None:
        counted = lengths if present is None else lengths[present]
        signal = cells.signal
        if isinstance(column, Vector):
            assert signal is not None
            if present is not None:
                signal = signal[np.repeat(present, lengths)]
            of_row = np.repeat(counted, counted)
            for width, rows in zip(*np.unique(counted, return_counts=True), strict=True):
                numbers = signal[of_row == width].reshape(-1, width)
                self._count(int(width), ArrayMoments.from_values(numbers), int(rows))
            return
        self.lengths.update(counted.astype(np.float64))
        if signal is not None:
            widths = (signal.shape[1],) if cells.widths is None else np.unique(cells.widths)
            for width in widths:
                if width:
                    self._add_steps(int(width), cells, present)

    def _add_steps(self, channels: int, cells: Cells, present: Bools | None) -> None:
        """Add the steps of the present rows whose series have this number of channels."""
        steps, lengths, counted = select_steps(channels, cells)
        if present is not None:
            steps, lengths = steps[np.repeat(present, lengths)], np.where(present, lengths, 0)
            counted = counted & present
        self._count(channels, ArrayMoments.from_values(steps), int(counted.sum()))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        self.padded += len(np.unique(rows[np.isnan(steps).all(1)]))

    def _add_images(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Add the moments in colour and in grey: which one is needed is known only at the end."""
        if pixels.shape[1] == 3:
            self.coloured += int(is_coloured(pixels).sum())
            self._count(3, ArrayMoments.from_values(pixels), len(pixels))
            pixels = to_grey(pixels)
        self._count(1, ArrayMoments.from_values(pixels), len(pixels))

    def _count(self, shape: int, moments: ArrayMoments, rows: int) -> None:
        known = self.moments.get(shape)
        self.moments[shape] = moments if known is None else known.combine(moments)
        self.rows[shape] = self.rows.get(shape, 0) + rows
        if len(self.rows) > MOST_WIDTHS:
            rarest = max(self.rows, key=lambda width: (-self.rows[width], width))
            del self.moments[rarest], self.rows[rarest]
