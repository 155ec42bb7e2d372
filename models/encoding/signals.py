"""Signals and tokens in the shape that was learned: from decoded cells, and scaled on the device.

In raw form each is flat, [rows, width]: uint8 of pixels, else float32 with NaN where a row is
padded. The channel that is the mask of a padded signal is made on the device.
"""

import math
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.batch import SignalInput, TokenInput
from models.columns import Audio, FeatureColumn, Image, Sequence, Text, Vector, Video
from models.decoding.audio import count_frames
from models.decoding.lists import select_steps
from models.decoding.scalars import Bools, Cells, Values, keep_first_rules
from models.decoding.texts import TOKENS
from models.encoding.signal_statistics import LONGEST, SignalStatistics
from models.refusal import Refusal
from models.schema import UNEVEN, Source

# Bound on a scaled number, in standard deviations, as that of numeric columns: a pixel that never
# changed in training has none to speak of. Those of a vector are in units of their mean deviation,
# of which one that varies much may have many.
CLIP, VECTOR_CLIP = 10.0, 100.0


class LearnedInputs(NamedTuple):
    """What became of one column."""

    signal: SignalInput | None = None
    tokens: TokenInput | None = None

    def to_document(self) -> dict[str, Any]:
        """JSON that `from_document` reads back."""
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


class ShapedCells(NamedTuple):
    """The cells of a column in the shape that was learned."""

    signal: Values | None  # uint8 or float32 [rows, raw width]
    tokens: npt.NDArray[np.int32] | None  # [rows, length]
    broken: tuple[tuple[Bools, str], ...]  # rows that do not have that shape


def learn_inputs(source: Source, statistics: SignalStatistics, vocabulary: int) -> LearnedInputs:
    """The inputs that a column becomes, given what training saw of it and its vocabulary."""
    column, name = source.column, source.column.name
    match column:
        case Vector():
            return LearnedInputs(SignalInput(name, "vector", (max(1, statistics.usual),)))
        case Sequence():
            length = column.length or source.list_size or statistics.length
            if source.has_events:
                return LearnedInputs(tokens=TokenInput(name, vocabulary, length))
            return LearnedInputs(_series(source, statistics, length))
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


def _series(source: Source, statistics: SignalStatistics, length: int) -> SignalInput:
    """Windows of a fixed size that are all whole need no mask."""
    uneven = source.signature == UNEVEN
    channels = max(1, statistics.usual) if uneven else int(source.signature.split()[2])
    whole = source.list_size is not None and length <= source.list_size and not statistics.padded
    named = source.channels if len(source.channels) == channels else ()
    shape = (channels + (not whole), length)
    return SignalInput(source.column.name, "series", shape, not whole, named)


def bound_bytes(source: Source) -> int:
    """Memory of a row's signals and tokens before it is known what they will be."""
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
    """The cells in the shape that was learned; `codes` are those of all events."""
    signal, tokens = cells.signal, cells.tokens
    broken: dict[str, Bools] = {}
    match column := source.column:
        case Vector():
            assert learned.signal is not None
            signal, broken = _vectors(cells, learned.signal.width)
        case Sequence() if learned.tokens is not None:
            assert codes is not None
            tokens = _events(cells, codes, learned.tokens.length, column)
        case Sequence():
            assert learned.signal is not None
            signal, broken = _windows(cells, learned.signal, column)
    if signal is not None:
        signal = signal.reshape(len(signal), -1)
        if signal.dtype != np.uint8:
            # Arrow lends its memory for reading only. What overflows is a problem already.
            with np.errstate(over="ignore"):
                signal = np.require(signal, np.float32, ["C", "W"])
            if cells.null is not None:
                signal[cells.null] = np.nan
    # A row that has no list, or a wrong one, is not to blame for its length as well.
    for other in [rows for rows, _ in cells.problems] + (
        [] if cells.null is None else [cells.null]
    ):
        broken = {rule: rows & ~other for rule, rows in broken.items()}
    return ShapedCells(signal, tokens, keep_first_rules(broken))


def _vectors(cells: Cells, width: int) -> tuple[Values, dict[str, Bools]]:
    assert cells.signal is not None
    assert cells.lengths is not None
    fits = cells.lengths == width
    if fits.all():
        return cells.signal.reshape(-1, width), {}
    vectors = np.zeros((len(fits), width), np.float32)
    vectors[fits] = cells.signal[np.repeat(fits, cells.lengths)].reshape(-1, width)
    return vectors, {"wrong_length": ~fits}


def _windows(cells: Cells, given: SignalInput, column: Sequence) -> tuple[Values, dict[str, Bools]]:
    """float32 [rows, channels, length]; NaN where there is no step."""
    channels, length = given.shape[0] - given.masked, given.shape[1]
    steps, lengths, fits = select_steps(channels, cells)
    windows: Values = np.full((len(lengths), channels, length), np.nan, np.float32)
    row, place, kept = _places(lengths, length, column)
    windows[row, :, place] = steps[kept]
    if given.masked:
        return windows, {"wrong_length": ~fits}
    missing = np.asarray(np.isnan(windows).all(1)).any(1)
    return windows, {"wrong_length": lengths < length, "unexpected_null": np.asarray(missing)}


def _events(cells: Cells, codes: Values, length: int, column: Sequence) -> npt.NDArray[np.int32]:
    """[rows, length]: 0 is padding; null joins "other"."""
    assert cells.lengths is not None
    tokens = np.zeros((len(cells.lengths), length), np.int32)
    row, place, kept = _places(cells.lengths, length, column)
    tokens[row, place] = np.maximum(codes[kept], 1)
    return tokens


def _places(
    lengths: npt.NDArray[np.int64], length: int, column: Sequence
) -> tuple[Values, Values, Bools]:
    """Row and place in [rows, length] of each step that is kept, and which of all steps are."""
    ends = np.cumsum(lengths)
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(row)) - (ends - lengths)[row]  # from the first
    if column.keep == "last":
        place = place + (length - lengths)[row]  # the last step is the last place
    kept = (place >= 0) & (place < length)
    return row[kept], place[kept], kept


class SignalScaling(nn.Module):
    """Scales one signal: (x - mean) / deviation of each band of a spectrogram, bin of a text's
    n-grams, or channel of anything else.

    The elements of a vector have means of their own and one deviation: they are in one unit, and
    what varies little says little. Each in its own deviation, the noise of an embedding weighs as
    much as what it says: mean AUROC on seven categories of MVTec AD 0.800 instead of 0.832
    (`gaussian`), 0.782 instead of 0.787 (mean distance to ten neighbours).
    """

    centre: Tensor  # float32, of a shape that goes with the raw signal's
    width: Tensor

    def __init__(self, given: SignalInput, centre: Tensor, width: Tensor) -> None:
        super().__init__()
        self.signal = given
        channels = given.shape[0] - given.masked
        self.raw_shape = (channels, *given.shape[1:])
        self.clip = VECTOR_CLIP if _is_vector(given) else CLIP
        if centre.shape != width.shape or not _goes_with(centre.shape, self.raw_shape):
            raise Refusal(
                f"expected scales for '{given.name}' of shape {self.raw_shape}, found "
                f"{tuple(centre.shape)} and {tuple(width.shape)}; the encoder's tensors belong to "
                "another document"
            )
        self.register_buffer("centre", centre)
        self.register_buffer("width", width)

    @classmethod
    def from_statistics(
        cls, column: FeatureColumn, given: SignalInput, statistics: SignalStatistics
    ) -> "SignalScaling":
        """From the moments of training; zeros and ones where there are none."""
        axis = 1 if isinstance(column, Audio) else 0
        places = given.shape[axis] - given.masked
        moments = statistics.moments.get(0 if isinstance(column, Audio | Text) else places)
        shape = [1] * len(given.shape)
        shape[axis] = places
        if moments is None:
            return cls(given, torch.zeros(shape), torch.ones(shape))
        deviation = moments.together if _is_vector(given) else moments.deviation
        return cls(given, _tensor(moments.mean, shape), _tensor(deviation, shape))

    @property
    def raw_width(self) -> int:
        """Numbers of a row in raw form."""
        return math.prod(self.raw_shape)

    def forward(self, raw: Tensor, null: Tensor | None = None) -> Tensor:
        """uint8 or float32 [rows, raw width] to float32 [rows, *shape]; rows where `null` [rows]
        is not 0 become zeros."""
        values = raw.reshape(len(raw), *self.raw_shape)
        scaled = (values.float() - self.centre).div_(self.width).clamp_(-self.clip, self.clip)
        scaled = scaled.nan_to_num_(0.0)
        if null is not None:
            scaled[null != 0] = 0.0
        if self.signal.masked:
            there = ~values.isnan().all(1, keepdim=True)
            scaled = torch.cat([scaled, there.to(scaled.dtype)], 1)
        return scaled

    def invert(self, scaled: Tensor) -> Tensor:
        """[rows, *shape] back to the unit of the input, [rows, *raw shape], for people to read."""
        centre, width = self.centre.to(scaled.device), self.width.to(scaled.device)
        return scaled[:, : self.raw_shape[0]] * width + centre


def _is_vector(given: SignalInput) -> bool:
    """Whether its numbers are those of a column, not counts of what a text holds."""
    return given.kind == "vector" and given.restates is None


def _goes_with(shape: tuple[int, ...], raw: tuple[int, ...]) -> bool:
    return len(shape) == len(raw) and all(a in (1, b) for a, b in zip(shape, raw, strict=True))


def _tensor(values: npt.NDArray[np.float64], shape: list[int]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)
