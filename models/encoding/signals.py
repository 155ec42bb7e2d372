"""Brings signals and tokens into the learned shape.

A raw signal is flat, [rows, width]: uint8 for pixels, else float32 with NaN for padding. The mask
of a padded signal is made when it is scaled.
"""

import math
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from models.columns import Audio, Image, Sequence, Text, Vector, Video
from models.decoding.audio import count_frames
from models.decoding.lists import select_steps
from models.decoding.scalars import Bools, Cells, Values, keep_first_rules
from models.decoding.texts import TOKENS
from models.encoding.signal_statistics import LONGEST, SignalStatistics
from models.layout import SignalInput, TokenInput
from models.schema import UNEVEN, Source


class LearnedInputs(NamedTuple):
    """The inputs that training made of one column."""

    signal: SignalInput | None = None
    tokens: TokenInput | None = None

    def to_document(self) -> dict[str, Any]:
        """A JSON object, for `from_document`."""
        return {
            "signal": self.signal and asdict(self.signal),
            "tokens": self.tokens and asdict(self.tokens),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "LearnedInputs":
        signal, tokens = document["signal"], document["tokens"]
        if signal:
            shape, channels = tuple(signal["shape"]), tuple(signal["channels"])
            signal = SignalInput(**{**signal, "shape": shape, "channels": channels})
        return cls(signal, tokens and TokenInput(**tokens))


SIGNAL_SCALING = ("centre", "width")  # the arrays of a `SignalScale`


class SignalScale(NamedTuple):
    """The scale of a signal: (x - centre) / width, in shapes that broadcast to the raw one."""

    raw_shape: tuple[int, ...]
    centre: npt.NDArray[np.float32]
    width: npt.NDArray[np.float32]

    @property
    def raw_width(self) -> int:
        """The number of raw values in a row."""
        return math.prod(self.raw_shape)

    def invert(self, scaled: Values) -> Values:
        """Scale [rows, *shape] back to the unit of the input, [rows, *raw shape]."""
        unscaled: Values = scaled[:, : self.raw_shape[0]] * self.width + self.centre
        return unscaled


def find_raw_shape(signal: SignalInput) -> tuple[int, ...]:
    """The shape of a signal without its mask."""
    return (signal.shape[0] - signal.masked, *signal.shape[1:])


class ShapedCells(NamedTuple):
    """The cells of a column in the learned shape."""

    signal: Values | None  # uint8 or float32 [rows, raw width]
    tokens: npt.NDArray[np.int32] | None  # [rows, length]
    broken: tuple[tuple[Bools, str], ...]  # rows that do not have the shape


def learn_inputs(source: Source, statistics: SignalStatistics, vocabulary: int) -> LearnedInputs:
    """The inputs of a column, from its statistics and the size of its vocabulary."""
    column, name = source.column, source.column.name
    match column:
        case Vector():
            return LearnedInputs(SignalInput(name, "vector", (max(1, statistics.most_frequent),)))
        case Sequence():
            length = column.length or source.list_size or statistics.length
            if source.has_events:
                return LearnedInputs(tokens=TokenInput(name, vocabulary, length))
            return LearnedInputs(_learn_series(source, statistics, length))
        case Image():
            channels = column.channels or (3 if statistics.coloured else 1)
            return LearnedInputs(SignalInput(name, "image", (channels, column.size, column.size)))
        case Video():
            shape = (3 if statistics.coloured else 1, column.frames, column.size, column.size)
            return LearnedInputs(SignalInput(name, "video", shape))
        case Audio():
            return LearnedInputs(
                SignalInput(name, "spectrogram", (1, column.mels, count_frames(column)))
            )
        case Text():
            bag = SignalInput(f"{name} n-grams", "vector", (column.ngrams,), restates=name)
            return LearnedInputs(
                bag if column.ngrams else None, TokenInput(name, TOKENS, column.length)
            )
    return LearnedInputs()


def _learn_series(source: Source, statistics: SignalStatistics, length: int) -> SignalInput:
    """The input of a series. Windows of a fixed size without missing steps need no mask."""
    uneven = source.signature == UNEVEN
    channels = max(1, statistics.most_frequent) if uneven else int(source.signature.split()[2])
    whole = source.list_size is not None and length <= source.list_size and not statistics.padded
    named = source.channels if len(source.channels) == channels else ()
    shape = (channels + (not whole), length)
    return SignalInput(source.column.name, "series", shape, not whole, named)


def bound_bytes(source: Source) -> int:
    """The most bytes that a row's signals and tokens can take, before their shape is learned."""
    match column := source.column:
        case Image():
            return 12 * column.size**2
        case Video():
            return 12 * column.frames * column.size**2
        case Audio():
            return 4 * column.mels * count_frames(column)
        case Text():
            return 4 * column.ngrams + 8 * column.length
        case Sequence():
            return 8 * (column.length or source.list_size or LONGEST)
        case Vector():
            return 4 * (source.list_size or 1024)
    return 0


def shape_cells(
    source: Source, learned: LearnedInputs, cells: Cells, codes: Values | None
) -> ShapedCells:
    """Bring the cells of a column into the learned shape. `codes` are the codes of all events."""
    signal, tokens = cells.signal, cells.tokens
    broken: dict[str, Bools] = {}
    match column := source.column:
        case Vector():
            assert learned.signal is not None
            signal, broken = _shape_vectors(cells, learned.signal.width)
        case Sequence() if learned.tokens is not None:
            assert codes is not None
            tokens = _shape_events(cells, codes, learned.tokens.length, column)
        case Sequence():
            assert learned.signal is not None
            signal, broken = _shape_windows(cells, learned.signal, column)
    if signal is not None:
        signal = signal.reshape(len(signal), -1)
        if signal.dtype != np.uint8:
            # A copy, because arrays from Arrow are read-only. Rows that overflow are problems.
            with np.errstate(over="ignore"):
                signal = np.require(signal, np.float32, ["C", "W"])
            if cells.null is not None:
                signal[cells.null] = np.nan
    # A row with a null or another problem gets no problem for its length.
    for other in [rows for rows, _ in cells.problems] + (
        [] if cells.null is None else [cells.null]
    ):
        broken = {rule: rows & ~other for rule, rows in broken.items()}
    return ShapedCells(signal, tokens, keep_first_rules(broken))


def _shape_vectors(cells: Cells, width: int) -> tuple[Values, dict[str, Bools]]:
    assert cells.signal is not None
    assert cells.lengths is not None
    fits = cells.lengths == width
    if fits.all():
        return cells.signal.reshape(-1, width), {}
    vectors = np.zeros((len(fits), width), np.float32)
    vectors[fits] = cells.signal[np.repeat(fits, cells.lengths)].reshape(-1, width)
    return vectors, {"wrong_length": ~fits}


def _shape_windows(
    cells: Cells, signal: SignalInput, column: Sequence
) -> tuple[Values, dict[str, Bools]]:
    """The series as float32 [rows, channels, length]; NaN where a row has no step."""
    channels, length = signal.shape[0] - signal.masked, signal.shape[1]
    steps, lengths, fits = select_steps(channels, cells)
    windows: Values = np.full((len(lengths), channels, length), np.nan, np.float32)
    row, place, kept = _find_places(lengths, length, column)
    windows[row, :, place] = steps[kept]
    if signal.masked:
        return windows, {"wrong_length": ~fits}
    missing = np.asarray(np.isnan(windows).all(1)).any(1)
    return windows, {"wrong_length": lengths < length, "unexpected_null": np.asarray(missing)}


def _shape_events(
    cells: Cells, codes: Values, length: int, column: Sequence
) -> npt.NDArray[np.int32]:
    """The events as codes, [rows, length]: 0 is padding, and null counts as "other"."""
    assert cells.lengths is not None
    tokens = np.zeros((len(cells.lengths), length), np.int32)
    row, place, kept = _find_places(cells.lengths, length, column)
    tokens[row, place] = np.maximum(codes[kept], 1)
    return tokens


def _find_places(
    lengths: npt.NDArray[np.int64], length: int, column: Sequence
) -> tuple[Values, Values, Bools]:
    """The row and the place in it of each step that is kept, and the mask of these steps."""
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - (ends - lengths)[row]  # counted from the first step
    if column.keep == "last":
        place = place + (length - lengths)[row]  # the last step gets the last place
    kept = (place >= 0) & (place < length)
    return row[kept], place[kept], kept
