"""The columns of a watch: frozen values, made from the spec, without torch.

A *feature column* feeds the encoder; a *role* says what else a column is used for. A column may
have both: a source address can be an entity and a feature.
"""

from dataclasses import dataclass
from typing import Literal

TimeUnit = Literal["s", "ms", "us", "ns"]


@dataclass(frozen=True)
class Numeric:
    """A number: integer, float or decimal."""

    name: str
    scale: Literal["standard", "robust", "quantile"] = "standard"
    log1p: bool = False  # sign(x) * log(1 + |x|) before scaling, for heavy tails
    clip: float | None = 10.0  # bound on the absolute scaled value; None for no bound
    low: float | None = None  # declared range in the input's unit; outside it, quarantine
    high: float | None = None


@dataclass(frozen=True)
class Categorical:
    """A value from a vocabulary: a string, an integer or a boolean."""

    name: str
    encoding: Literal["onehot", "embedding"] = "onehot"
    max_values: int = 64  # values with a code of their own, by frequency; the others are "other"


@dataclass(frozen=True)
class Boolean:
    """True or false; the integers 0 and 1 are also accepted."""

    name: str


@dataclass(frozen=True)
class IPAddress:
    """An IPv4 or IPv6 address as text."""

    name: str
    same_network_as: str | None = None  # another address column: are both in one network?
    prefix: int = 24  # bits of an IPv4 network; an IPv6 network has 64


@dataclass(frozen=True)
class Port:
    """A TCP or UDP port, 0 to 65535."""

    name: str
    top: int = 16  # number of frequent ports that have codes of their own


@dataclass(frozen=True)
class Timestamp:
    """A point in time: the hour of day and the weekday become points on a circle, in UTC."""

    name: str
    unit: TimeUnit | None = None  # of numbers since 1970; None for times and text


@dataclass(frozen=True)
class Vector:
    """A list of numbers with the same length in every row: an embedding, spectrum or histogram."""

    name: str


@dataclass(frozen=True)
class Sequence:
    """A list in order of time: events (text, integers or booleans), or steps of numbers."""

    name: str
    max_values: int = 64  # as in Categorical, for events
    length: int | None = None  # steps; None: the fixed size, or 95% of training rows fit
    keep: Literal["last", "first"] = "last"  # the part of a longer list that is used


@dataclass(frozen=True)
class Image:
    """The bytes of a PNG, JPEG or WebP file."""

    name: str
    size: int = 32  # height and width after resizing, in pixels
    channels: Literal[1, 3] | None = None  # grey or RGB; None: grey if all training images are grey


@dataclass(frozen=True)
class Audio:
    """The bytes of a WAV or FLAC file, which become a log-mel spectrogram of one channel."""

    name: str
    sample_rate: int = 8_000  # Hz after resampling; speech lies below 4 kHz
    seconds: float = 1.0  # used, from the beginning; silence pads a shorter recording
    mels: int = 40  # frequency bands, evenly spaced on the mel scale


@dataclass(frozen=True)
class Text:
    """Free text, read as bytes in order and as hashed words and character 3-grams."""

    name: str
    length: int = 256  # bytes that are read, from the beginning
    ngrams: int = 256  # bins for hashed words and 3-grams; 0 for no such input


@dataclass(frozen=True)
class Video:
    """A list of the bytes of PNG, JPEG or WebP files, in order of time."""

    name: str
    frames: int = 8  # frames that are used, spaced evenly over the list
    size: int = 32  # height and width of a frame after resizing, in pixels


SignalColumn = Vector | Sequence | Image | Audio | Text | Video  # these become signals and tokens
FeatureColumn = Numeric | Categorical | Boolean | IPAddress | Port | Timestamp | SignalColumn


@dataclass(frozen=True)
class Roles:
    """The columns by their use, apart from being a feature."""

    id: tuple[str, ...] = ()  # together they identify a row
    time: str | None = None
    entity: tuple[str, ...] = ()  # who did it: customer, host, terminal
    label: str | None = None  # 0 is normal, 1 is an anomaly; never a feature
    normal: tuple[str | int, ...] = ()  # values of the label that are normal; (): 0
    kind: str | None = None  # the kind of an anomaly, for evaluation only
    keep: tuple[str, ...] = ()  # copied into the flags
    sensitive: frozenset[str] = frozenset()  # their values never appear in any output
    keyed: frozenset[str] = frozenset()  # sensitive columns that flags carry as keyed digests
    pictured: tuple[str, ...] = ()  # signals that a flag may show as a picture
    time_unit: TimeUnit | None = None  # where the time is a number since 1970

    @property
    def flagged(self) -> tuple[str, ...]:
        """The input columns that a flag carries: id, time, entity and keep, each column once.

        >>> Roles(id=("flow",), time="ts", entity=("src",), keep=("src", "bytes")).flagged
        ('flow', 'ts', 'src', 'bytes')
        """
        time = (self.time,) if self.time else ()
        return tuple(dict.fromkeys((*self.id, *time, *self.entity, *self.keep)))
