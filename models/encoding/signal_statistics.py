"""Statistics of a signal that merge: moments of elements, bands or channels, and lengths."""

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

# Widths of a vector column that are counted apart. A column has one, and the odd row another; the
# rarest go where there are more.
MOST_WIDTHS = 8
LONGEST = 512  # steps that are taken where the spec does not say: attention grows with their square
USUAL = 0.95  # share of the rows that are to fit without being cut


@dataclass
class SignalStatistics:
    """What the signal of one column adds up to.

    The moments are kept for each shape that the signal may turn out to have: by the width of a
    vector, or the channels of an image or a series; under 0 where there is but one.
    """

    moments: dict[int, ArrayMoments] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)  # with a signal of that shape
    lengths: Any = None  # kll_doubles_sketch, of sequences
    padded: int = 0  # rows of a sequence with missing steps
    coloured: int = 0  # rows of images that are not all grey

    @classmethod
    def for_column(cls, column: FeatureColumn) -> "SignalStatistics":
        statistics = cls()
        if isinstance(column, Sequence):
            statistics.lengths = datasketches.kll_doubles_sketch(KLL_K)
        return statistics

    def add(self, column: FeatureColumn, cells: Cells, present: Bools | None) -> None:
        """Count the rows that are present (None for all)."""
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
    def usual(self) -> int:
        """The shape of most rows, the smaller of two as frequent; 0 where none was seen."""
        usual: int = min(self.rows, key=lambda shape: (-self.rows[shape], shape), default=0)
        return usual

    @property
    def length(self) -> int:
        """Steps that hold most sequences whole: at least 1, at most LONGEST."""
        if self.lengths.is_empty():
            return 1
        return max(1, min(LONGEST, math.ceil(float(self.lengths.get_quantile(USUAL, True)))))

    def to_document(self) -> dict[str, Any]:
        lengths = self.lengths and base64.b64encode(self.lengths.serialize()).decode()
        return {
            "moments": {str(shape): found.to_document() for shape, found in self.moments.items()},
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
        """Series of so many channels, in the rows that are present."""
        steps, lengths, counted = select_steps(channels, cells)
        if present is not None:
            steps, lengths = steps[np.repeat(present, lengths)], np.where(present, lengths, 0)
            counted = counted & present
        self._count(channels, ArrayMoments.from_values(steps), int(counted.sum()))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        self.padded += len(np.unique(rows[np.isnan(steps).all(1)]))

    def _add_images(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Colours, and greys as they would be: which of the two is not known before the end."""
        if pixels.shape[1] == 3:
            self.coloured += int(is_coloured(pixels).sum())
            self._count(3, ArrayMoments.from_values(pixels), len(pixels))
            pixels = to_grey(pixels)
        self._count(1, ArrayMoments.from_values(pixels), len(pixels))

    def _count(self, shape: int, moments: ArrayMoments, rows: int) -> None:
        seen = self.moments.get(shape)
        self.moments[shape] = moments if seen is None else seen.combine(moments)
        self.rows[shape] = self.rows.get(shape, 0) + rows
        if len(self.rows) > MOST_WIDTHS:
            rarest = max(self.rows, key=lambda width: (-self.rows[width], width))
            del self.moments[rarest], self.rows[rarest]
