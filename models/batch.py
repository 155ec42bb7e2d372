"""Encoded rows and their shape: what an encoder makes and a detector takes."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from models import canonical_json
from models.refusal import Refusal

# Rows a chunk: 4,096 of a table fit the cache of a CPU; 8,192 was about 10% slower and 65,536 lost
# 30% to page faults.
CHUNK = 4096
# Of the signals and tokens of a chunk. A convolution makes tens of channels out of each, so that
# these 4 MiB become some 100 MiB: 256 images of 32 x 32 in colour, and a table's chunk whole.
CHUNK_BYTES = 4 * 1024**2


class Batch(NamedTuple):
    """Encoded rows on one device."""

    numeric: Tensor  # float32 [rows, len(layout.numeric)]
    codes: Tensor  # int64 [rows, len(layout.categories)]; 0 is "other", 1 is null
    label: Tensor | None = None  # float32 [rows]; 1 is an anomaly, NaN is unknown
    signals: tuple[Tensor, ...] = ()  # float32 [rows, *shape] each, as in `layout.signals`
    tokens: tuple[Tensor, ...] = ()  # int64 [rows, length] each; 0 is padding, 1 is "other"

    def to(self, device: torch.device | str) -> "Batch":
        return self.map(lambda tensor: tensor.to(device))

    def take(self, rows: Tensor | slice) -> "Batch":
        """The rows at these places, or where a mask is true."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed in the same way."""
        return Batch(
            change(self.numeric),
            change(self.codes),
            None if self.label is None else change(self.label),
            tuple(map(change, self.signals)),
            tuple(map(change, self.tokens)),
        )


def join(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches; labels only where every batch has them."""
    labels = [b.label for b in batches if b.label is not None]
    return Batch(
        torch.cat([b.numeric for b in batches]),
        torch.cat([b.codes for b in batches]),
        torch.cat(labels) if len(labels) == len(batches) else None,
        tuple(map(torch.cat, zip(*(b.signals for b in batches), strict=True))),
        tuple(map(torch.cat, zip(*(b.tokens for b in batches), strict=True))),
    )


def count_chunk_rows(bytes_a_row: int) -> int:
    """A power of two, at most CHUNK: rows whose signals and tokens of this size fit."""
    fitting = CHUNK_BYTES // max(1, bytes_a_row)
    return min(CHUNK, 1 << max(0, fitting.bit_length() - 1))


@dataclass(frozen=True)
class NumericInput:
    """One column of `Batch.numeric`."""

    name: str  # as a reason names it: "duration", "duration is null", "hour of ts (sin)"
    kind: Literal["real", "binary"]  # scaled number (about zero mean, unit variance), or 0/1


@dataclass(frozen=True)
class CategoryInput:
    """One column of `Batch.codes`."""

    name: str
    size: int  # codes are 0 .. size - 1
    embedding: int = 0  # width of a learned embedding; 0 for one-hot


@dataclass(frozen=True)
class SignalInput:
    """One entry of `Batch.signals`: numbers in a fixed shape, about zero mean and unit variance.

    The shape is (width,) of a vector, (channels, steps) of a series, (channels, height, width) of
    an image, (channels, bands, steps) of a spectrogram, (channels, frames, height, width) of a
    video. Of a `masked` one the
    last channel is 1 where there is data and 0 where the row was padded; padding is 0 throughout.
    """

    name: str
    kind: Literal["vector", "series", "image", "spectrogram", "video"]
    shape: tuple[int, ...]
    masked: bool = False
    channels: tuple[str, ...] = ()  # names of the channels, where they have one
    restates: str | None = None  # the token input of the same text

    @property
    def width(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class TokenInput:
    """One entry of `Batch.tokens`: a text or a list of events as codes in order."""

    name: str
    size: int  # codes are 0 .. size - 1
    length: int  # codes a row


@dataclass(frozen=True)
class Layout:
    """The shape of an encoder's output: what a detector is built for."""

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
        """Rows to score at once: always the same for a layout, since a score may differ in its
        last bits with their number."""
        signals = sum(4 * signal.width for signal in self.signals)
        return count_chunk_rows(signals + sum(8 * tokens.length for tokens in self.tokens))

    def digest(self) -> bytes:
        """SHA-256 of names, kinds and sizes, 32 bytes: two layouts are the same if this is."""
        data = canonical_json.encode(asdict(self), ascii_only=True, spaced=True)
        return hashlib.sha256(data).digest()

    def check(self, batch: Batch) -> None:
        """Raise Refusal unless the batch has this layout's columns and types.

        The range of the codes is checked on the CPU only: on a GPU the check would wait for the
        device, and the encoder makes no other codes.
        """
        wanted = (len(self.numeric), torch.float32, len(self.categories), torch.int64)
        found = (*_columns(batch.numeric), *_columns(batch.codes))
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
                    raise _outside(category.name, category.size)
        for given, tokens in zip(self.tokens, batch.tokens, strict=True):
            if tokens.numel() and tokens.device.type == "cpu":
                low, high = tokens.aminmax()
                if low < 0 or high >= given.size:
                    raise _outside(given.name, given.size)

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


def _outside(name: str, size: int) -> Refusal:
    return Refusal(
        f"expected codes of '{name}' from 0 to {size - 1}, found others; encode the rows with the "
        "encoder that the detector was trained with"
    )


def _columns(tensor: Tensor) -> tuple[int, torch.dtype]:
    return (tensor.shape[1] if tensor.ndim == 2 else -1), tensor.dtype


class Contributions(NamedTuple):
    """Why a row got its score."""

    shares: Tensor  # float32 [rows, len(layout.features)], in the score's unit
    expected: Batch  # what the detector expected instead, encoded: float32 and int64 as in Batch
    # Where within a feature: float32 [rows, *shape] of each signal, then [rows, length] of each
    # token input. Each adds up to the share of its feature, but for what no place is to blame for.
    maps: tuple[Tensor, ...] = ()
