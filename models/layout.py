"""The inputs that an encoder makes and a detector is built for."""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Literal

from models import canonical_json

# Rows per chunk. 4,096 rows of a table fit a CPU's cache; with 8,192 rows scoring was about 10%
# slower, and with 65,536 page faults took 30%.
CHUNK = 4096
# Rows that are explained at once: a task has a few flags, and 4,096 rows of most detectors take
# milliseconds.
EXPLAINED = 256
# Bytes of the signals and tokens of a chunk. A convolution makes tens of channels from each signal,
# so 4 MiB become about 100 MiB. 256 colour images of 32 x 32 pixels fit.
CHUNK_BYTES = 4 * 1024**2


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

    @property
    def explained_rows(self) -> int:
        """Rows to explain at once, fixed for the same reason."""
        return min(EXPLAINED, self.chunk_rows)

    def digest(self) -> bytes:
        """SHA-256 of the layout, 32 bytes. Two layouts with the same digest are the same."""
        data = canonical_json.encode(asdict(self), ascii_only=True, spaced=True)
        return hashlib.sha256(data).digest()
