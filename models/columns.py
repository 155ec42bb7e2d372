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


FeatureColumn = Numeric | Categorical | Boolean | IPAddress | Port | Timestamp


@dataclass(frozen=True)
class Roles:
    """What a column is for, besides feeding the detector."""

    id: tuple[str, ...] = ()  # together unique a row
    time: str | None = None
    entity: tuple[str, ...] = ()  # who did it: customer, host, terminal
    label: str | None = None  # 0 normal, 1 anomaly; never a feature
    kind: str | None = None  # the type of attack, for evaluation only
    keep: tuple[str, ...] = ()  # copied into the flags
    sensitive: frozenset[str] = frozenset()  # never in messages, reasons or pages

    @property
    def flagged(self) -> tuple[str, ...]:
        """The input columns that a flag carries, each once: id, time, entities, kept."""
        time = (self.time,) if self.time else ()
        return tuple(dict.fromkeys((*self.id, *time, *self.entity, *self.keep)))
