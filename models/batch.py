"""Encoded rows and their layout: the output of an encoder and the input of a detector."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models import canonical_json
from models.refusal import Refusal

# Rows per chunk. 4,096 rows of a table fit a CPU's cache; with 8,192 rows scoring was about 10%
# slower, and with 65,536 page faults took 30%.
CHUNK = 4096
# Bytes of the signals and tokens of a chunk. A convolution makes tens of channels from each signal,
# so 4 MiB become about 100 MiB. 256 colour images of 32 x 32 pixels fit.
CHUNK_BYTES = 4 * 1024**2


class Batch(NamedTuple):
    """Encoded rows on one device.

    >>> batch = Batch(torch.zeros(3, 2), torch.zeros(3, 0, dtype=torch.int64))
    >>> batch.take(slice(2)).numeric.shape
    torch.Size([2, 2])
    """

    numeric: Tensor  # float32 [rows, len(layout.numeric)]
    codes: Tensor  # int64 [rows, len(layout.categories)]; 0 is "other", 1 is null
    label: Tensor | None = None  # float32 [rows]; 1 is an anomaly, NaN is unknown
    signals: tuple[Tensor, ...] = ()  # float32 [rows, *shape] each, as in `layout.signals`
    tokens: tuple[Tensor, ...] = ()  # int64 [rows, length] each; 0 is padding, 1 is "other"

    def to(self, device: torch.device | str) -> "Batch":
        return self.map(lambda tensor: tensor.to(device))

    def take(self, rows: Tensor | slice) -> "Batch":
        """The rows at the given indices, or those where a mask is true."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch after `change` was applied to every tensor."""
        return Batch(
            change(self.numeric),
            change(self.codes),
            None if self.label is None else change(self.label),
            tuple(map(change, self.signals)),
            tuple(map(change, self.tokens)),
        )


def join(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches. The result has labels if every batch has labels."""
    labels = [b.label for b in batches if b.label is not None]
    return Batch(
        torch.cat([b.numeric for b in batches]),
        torch.cat([b.codes for b in batches]),
        torch.cat(labels) if len(labels) == len(batches) else None,
        tuple(map(torch.cat, zip(*(b.signals for b in batches), strict=True))),
        tuple(map(torch.cat, zip(*(b.tokens for b in batches), strict=True))),
    )


def count_chunk_rows(bytes_per_row: int) -> int:
    """The rows that fit one chunk: a power of two, at most CHUNK.

    `bytes_per_row` is the size of the signals and tokens of one row.
    """
    fitting = CHUNK_BYTES // max(1, bytes_per_row)
    return min(CHUNK, 1 << max(0, fitting.bit_length() - 1))


@dataclass(frozen=True)
class NumericInput:
    """One column of `Batch.numeric`."""

    name: str  # as in a reason: "duration", "duration is null", "hour of ts (sin)"
    kind: Literal["real", "binary"]  # a scaled number of about mean 0 and variance 1, or 0 and 1


@dataclass(frozen=True)
class CategoryInput:
    """One column of `Batch.codes`."""

    name: str
    size: int  # codes are 0 .. size - 1
    embedding: int = 0  # width of a learned embedding; 0 for one-hot


@dataclass(frozen=True)
class SignalInput:
    """One entry of `Batch.signals`: numbers in a fixed shape, of about mean 0 and variance 1.

    The shape is (width,) for a vector, (channels, steps) for a series, (channels, height, width)
    for an image, (channels, bands, steps) for a spectrogram and (channels, frames, height, width)
    for a video. If it is `masked`, the last channel is 1 for data and 0 for padding; the other
    channels are 0 in the padding.
    """

    name: str
    kind: Literal["vector", "series", "image", "spectrogram", "video"]
    shape: tuple[int, ...]
    masked: bool = False
    channels: tuple[str, ...] = ()  # names of the channels, if the input has them
    restates: str | None = None  # name of the token input that has the same text

    @property
    def width(self) -> int:
        """The number of values in the signal."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TokenInput:
    """One entry of `Batch.tokens`: the codes of a text or a list of events, in order."""

    name: str
    size: int  # codes are 0 .. size - 1
    length: int  # codes per row


@dataclass(frozen=True)
class Layout:
    """The inputs that an encoder makes and a detector is built for.

    >>> Layout((NumericInput("bytes", "real"),), (CategoryInput("proto", 5),)).features
    ('bytes', 'proto')
    """

    numeric: tuple[NumericInput, ...]
    categories: tuple[CategoryInput, ...]
    signals: tuple[SignalInput, ...] = ()
    tokens: tuple[TokenInput, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all features, in the order of `Contributions.shares`."""
        parts = (self.numeric, self.categories, self.signals, self.tokens)
        return tuple(feature.name for part in parts for feature in part)

    @property
    def chunk_rows(self) -> int:
        """Rows to score at once. It is fixed for a layout, because the number of rows in a
        computation may change the last bits of a score."""
        signals = sum(4 * signal.width for signal in self.signals)
        return count_chunk_rows(signals + sum(8 * tokens.length for tokens in self.tokens))

    def digest(self) -> bytes:
        """SHA-256 of the layout, 32 bytes. Two layouts with the same digest are the same."""
        data = canonical_json.encode(asdict(self), ascii_only=True, spaced=True)
        return hashlib.sha256(data).digest()

    def check(self, batch: Batch) -> None:
        """Raise Refusal unless the batch has the inputs and types of this layout.

        The range of the codes is checked only on a CPU: on a GPU the check would wait for the
        device.
        """
        wanted = (len(self.numeric), torch.float32, len(self.categories), torch.int64)
        found = (*_describe(batch.numeric), *_describe(batch.codes))
        if wanted != found or len(batch.numeric) != len(batch.codes):
            raise Refusal(
                f"expected a batch of {wanted[0]} numeric columns ({wanted[1]}) and {wanted[2]} "
                f"columns of codes ({wanted[3]}), found {found[0]} ({found[1]}) and {found[2]} "
                f"({found[3]}), with {len(batch.numeric)} and {len(batch.codes)} rows; encode "
                f"the rows with the encoder that the detector was trained with"
            )
        self._check_shapes(batch)
        if self.categories and len(batch.codes) and batch.codes.device.type == "cpu":
            codes = batch.codes.T
            ends = zip(codes.amin(1).tolist(), codes.amax(1).tolist(), strict=True)
            for category, (least, most) in zip(self.categories, ends, strict=True):
                if least < 0 or most >= category.size:
                    raise _refuse_codes(category.name, category.size)
        for token_input, tokens in zip(self.tokens, batch.tokens, strict=True):
            if tokens.numel() and tokens.device.type == "cpu":
                low, high = tokens.aminmax()
                if low < 0 or high >= token_input.size:
                    raise _refuse_codes(token_input.name, token_input.size)

    def _check_shapes(self, batch: Batch) -> None:
        rows = len(batch.numeric)
        wanted = [
            *((s.name, (rows, *s.shape), torch.float32) for s in self.signals),
            *((t.name, (rows, t.length), torch.int64) for t in self.tokens),
        ]
        tensors = (*batch.signals, *batch.tokens)
        found = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        if found != [(shape, dtype) for _, shape, dtype in wanted]:
            raise Refusal(
                f"expected signals and tokens {wanted}, found {found}; encode the rows with the "
                "encoder that the detector was trained with"
            )


def _refuse_codes(name: str, size: int) -> Refusal:
    return Refusal(
        f"expected codes of '{name}' from 0 to {size - 1}, found others; encode the rows with the "
        "encoder that the detector was trained with"
    )


def _describe(tensor: Tensor) -> tuple[int, torch.dtype]:
    return (tensor.shape[1] if tensor.ndim == 2 else -1), tensor.dtype


class Contributions(NamedTuple):
    """The share of each feature in the score of each row."""

    shares: Tensor  # float32 [rows, len(layout.features)], in the unit of the score
    expected: Batch  # the encoded rows that the detector expected instead
    # The share of each place in a feature: float32 [rows, *shape] of each signal, then
    # [rows, length] of each token input. The places add up to the share of the feature, except for
    # a part that belongs to no place.
    maps: tuple[Tensor, ...] = ()
