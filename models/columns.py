"""What the columns of a watch are: frozen values, made from the spec, without torch.

A *feature column* feeds the encoder; a *role* says what else a column is for. One column may have
both: a source address is an entity and a feature.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Numeric:
    """A number: integer, float or decimal."""

    name: str
    scale: Literal["standard", "robust", "quantile"] = "standard"
    log1p: bool = False  # sign(x) * log(1 + |x|) before scaling, for heavy tails
    clip: float | None = 10.0  # bound on the scaled value, in its own unit; None for none
    low: float | None = None  # declared range in the input's unit; outside it, quarantine
    high: float | None = None


@dataclass(frozen=True)
class Categorical:
    """A value out of a vocabulary: string, integer or boolean."""

    name: str
    encoding: Literal["onehot", "embedding"] = "onehot"
    max_values: int = 64  # the most frequent ones; the others are "other"


@dataclass(frozen=True)
class Boolean:
    """True or false; integers 0 and 1 are taken as well."""

    name: str


@dataclass(frozen=True)
class IPAddress:
    """An IPv4 or IPv6 address as text."""

    name: str
    same_network_as: str | None = None  # another address column of the row
    prefix: int = 24  # bits that make "the same network"; IPv6 uses 64


@dataclass(frozen=True)
class Port:
    """A TCP or UDP port, 0 to 65535."""

    name: str
    top: int = 16  # the most frequent ports get an input of their own


@dataclass(frozen=True)
class Timestamp:
    """An instant; its hour of the day and day of the week as points on a circle, in UTC."""

    name: str


@dataclass(frozen=True)
class Vector:
    """A list of numbers, as many in each row: an embedding, a spectrum, a histogram."""

    name: str


@dataclass(frozen=True)
class Sequence:
    """A list in the order of time: events (text, integers or booleans), or steps of numbers."""

    name: str
    max_values: int = 64  # of events: the most frequent ones; the others are "other"
    length: int | None = None  # steps; None: the 95% quantile of training's, or the fixed size
    keep: Literal["last", "first"] = "last"  # of a longer list


@dataclass(frozen=True)
class Image:
    """A PNG, JPEG or WebP file as bytes."""

    name: str
    size: int = 32  # height and width to which it is resized, in pixels
    channels: Literal[1, 3] | None = None  # grey or RGB; None: grey if all of training is


@dataclass(frozen=True)
class Audio:
    """A WAV or FLAC file as bytes, mixed to one channel: a log-mel spectrogram."""

    name: str
    sample_rate: int = 8_000  # Hz, to which it is resampled; speech is below 4 kHz
    seconds: float = 1.0  # kept of the beginning; a shorter one is padded with silence
    mels: int = 40  # bands of frequency, evenly spaced for the ear


@dataclass(frozen=True)
class Text:
    """Free text: its bytes in order, and hashed words and character 3-grams."""

    name: str
    length: int = 256  # bytes that are kept of the beginning
    ngrams: int = 256  # bins that words and 3-grams are hashed to; 0 for none


@dataclass(frozen=True)
class Video:
    """A list of PNG, JPEG or WebP files as bytes, in the order of time."""

    name: str
    frames: int = 8  # taken evenly over the list
    size: int = 32  # height and width to which each is resized, in pixels


SignalColumn = Vector | Sequence | Image | Audio | Text | Video  # become signals and tokens
FeatureColumn = Numeric | Categorical | Boolean | IPAddress | Port | Timestamp | SignalColumn


@dataclass(frozen=True)
class Roles:
    """What a column is for, besides feeding the detector."""

    id: tuple[str, ...] = ()  # together unique a row
    time: str | None = None
    entity: tuple[str, ...] = ()  # who did it: customer, host, terminal
    label: str | None = None  # 0 normal, 1 anomaly; never a feature
    kind: str | None = None  # the type of attack, for evaluation only
    keep: tuple[str, ...] = ()  # copied into the flags
    sensitive: frozenset[str] = frozenset()  # nothing that is written shows their values
    keyed: frozenset[str] = frozenset()  # sensitive ones that flags carry as keyed digests
    pictured: tuple[str, ...] = ()  # signals that a flag may show as a picture

    @property
    def flagged(self) -> tuple[str, ...]:
        """The input columns that a flag carries, each once: id, time, entities, kept."""
        time = (self.time,) if self.time else ()
        return tuple(dict.fromkeys((*self.id, *time, *self.entity, *self.keep)))
