"""What the columns of a table are, judged by name, type and a sample of rows."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.inference.signal_roles import is_prose, signal_role
from jobs.spec.columns import FLAG_COLUMNS

FEW = 64  # distinct values that one-hot takes as it stands
CODES = 32  # distinct integers that may be codes rather than amounts
SKEWED = 3.0  # of an exponential distribution: 2; of a log-normal with sigma 1: 6
LARGE = 10.0  # below it log1p bends little: rates and shares stay as they are
LOOK = 200  # values that are parsed as addresses

ANSWER = re.compile(r"label|attack|fraud|anomal|malicious|incident|outlier")
LABELS = {"label", "is_fraud", "fraud", "is_anomaly", "anomaly", "outlier", "class", "target"}
ID_WORDS = {"id", "uid", "uuid", "guid", "key"}
ENTITY_WORDS = {"user", "customer", "client", "account", "card", "terminal", "merchant", "host"}
ENTITY_WORDS |= {"device", "machine", "sensor", "entity", "src", "source", "orig"}
CODE_WORDS = {"proto", "protocol", "code", "type", "category", "class", "status", "kind", "mode"}


@dataclass(frozen=True)
class Inferred:
    """A column with what it seems to be; without roles it is left out, and `why` says why."""

    name: str
    roles: tuple[str, ...]
    why: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What a sample says of one column; of numbers also extremes and skew."""

    name: str
    type: pa.DataType
    rows: int
    nulls: int
    distinct: int
    low: Any = None
    high: Any = None
    skew: float = 0.0
    addresses: bool = False
    prose: bool = False
    signal: tuple[str, str] | None = None  # role and reason, of lists and bytes

    @property
    def words(self) -> set[str]:
        """`srcPort` and `src_port` both have `src` and `port`."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", self.name)
        return set(re.split(r"[^a-z0-9]+", spaced.lower()))

    @property
    def text(self) -> bool:
        return bool(pa.types.is_string(self.type))

    @property
    def whole(self) -> bool:
        return bool(pa.types.is_integer(self.type))

    @property
    def number(self) -> bool:
        t = pa.types
        return self.whole or bool(t.is_floating(self.type) or t.is_decimal(self.type))

    @property
    def two_valued(self) -> bool:
        """A boolean, or integers that are 0 or 1."""
        zero_one = self.whole and self.low is not None and self.low >= 0 and self.high <= 1
        return bool(pa.types.is_boolean(self.type)) or zero_one

    @property
    def unique(self) -> bool:
        return not self.nulls and self.distinct == self.rows > 1


def infer(table: pa.Table) -> list[Inferred]:
    """One entry a column, in the order of the table; columns of the same name come as one."""
    counts = Counter(table.column_names)
    taken: set[str] = set()
    found = []
    for name in counts:
        if counts[name] > 1:
            column = Inferred(
                name, (), f"{counts[name]} columns have this name: rename all but one"
            )
        elif not name or not name.isprintable():
            column = Inferred(name, (), "the name has characters that do not print")
        else:
            column = _guess(facts(name, table[name]), taken)
        if set(column.roles) & {"id", "time", "entity", "keep"} and name.lower() in FLAG_COLUMNS:
            column = Inferred(name, (), "the table of flags has a column of this name")
        taken.update(column.roles)
        found.append(column)
    return _with_networks(found)


def facts(name: str, column: pa.ChunkedArray) -> Facts:
    """Measure a sample of one column."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    known = column.drop_null()
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type) or binary:
        found = signal_role(column)
        seen = Facts(name, column.type, len(column), column.null_count, len(known))
        return replace(seen, signal=found)
    distinct = known.unique()
    seen = Facts(name, column.type, len(column), column.null_count, len(distinct))
    if seen.number and len(known):
        values = known.cast(pa.float64(), safe=False)
        values = values.filter(pc.is_finite(values))
        extremes = pc.min_max(values)
        low, high = extremes["min"].as_py(), extremes["max"].as_py()
        skew = pc.skew(values, min_count=3).as_py() or 0.0
        return replace(seen, low=low, high=high, skew=skew)
    if seen.text and len(known):
        addresses = all(map(_is_address, distinct[:LOOK].to_pylist()))
        return replace(seen, addresses=addresses, prose=is_prose(distinct))
    return seen


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _guess(seen: Facts, taken: set[str]) -> Inferred:
    """The first rule that applies; rules of names come before rules of values."""
    guess = next(_rules(seen, taken))
    if not guess.roles or not seen.nulls:
        return guess
    share = f"null in {seen.nulls / seen.rows:.1%} of the rows"
    return Inferred(guess.name, guess.roles, f"{guess.why}, {share}", guess.options)


def _rules(seen: Facts, taken: set[str]) -> Iterator[Inferred]:
    def is_(*roles: str, why: str, **options: Any) -> Inferred:
        return Inferred(seen.name, roles, why, options)

    several = f"{seen.distinct:,} distinct in {seen.rows:,} rows"
    lower = seen.name.lower()
    if seen.distinct == 0:
        yield is_(why="all values are null")
    if lower in LABELS and seen.two_valued and "label" not in taken:
        yield is_("label", why="0 and 1, by its name the answer; for evaluation only")
    if ANSWER.search(lower):
        if "kind" not in taken and seen.distinct <= FEW and (seen.text or seen.whole):
            yield is_("kind", why="by its name the type of an anomaly; for evaluation only")
        yield is_(why="by its name an answer, which a detector must not see")
    if seen.signal:
        yield is_(seen.signal[0], why=seen.signal[1])
    if pa.types.is_timestamp(seen.type) or pa.types.is_date32(seen.type):
        zone = "" if getattr(seen.type, "tz", "UTC") else ", without a zone: taken as UTC"
        roles = ("timestamp",) if "time" in taken else ("time", "timestamp")
        yield is_(*roles, why=f"{seen.type}{zone}")
    named = seen.text or seen.whole
    if named and seen.unique and seen.words & ID_WORDS and "id" not in taken:
        yield is_("id", why=f"unique in {seen.rows:,} rows")
    if seen.distinct == 1 and not seen.nulls:
        yield is_(why="constant in the sample")
    if seen.two_valued:
        yield is_("boolean", why="two values" if seen.distinct > 1 else "one value and nulls")
    if seen.text and seen.addresses:
        entity = ("entity",) if seen.words & ENTITY_WORDS else ()
        yield is_(*entity, "ip", why=f"addresses, {several}")
    if seen.whole and "port" in seen.words and seen.low >= 0 and seen.high <= 65535:
        yield is_("port", why=f"{seen.low:.0f} to {seen.high:.0f}")
    if named and seen.words & (ENTITY_WORDS | ID_WORDS) and not seen.unique:
        yield from _entity(seen, several)
    if seen.text:
        if seen.distinct <= FEW and seen.distinct * 2 <= seen.rows:
            yield is_("categorical", why=several)
        if seen.prose:
            yield is_("text", why=f"words, {several}")
        yield is_(why=f"text, {several}: too many for a category")
    if seen.whole and seen.distinct <= CODES and seen.words & CODE_WORDS:
        yield is_("categorical", why=f"codes, {several}")
    if seen.number and seen.low is not None:
        yield _number(seen)
    yield is_(why=f"{seen.type} is no feature of any kind")


def _entity(seen: Facts, several: str) -> Iterator[Inferred]:
    """Who did it; amounts such as `src_bytes` have the words too, and are none."""
    ends = re.split(r"[^a-z0-9]+", seen.name.lower())[-1]
    if seen.text or ends in ID_WORDS | ENTITY_WORDS:
        few = ("categorical",) if seen.distinct <= FEW else ()
        yield Inferred(seen.name, ("entity", *few), several)


def _number(seen: Facts) -> Inferred:
    span = f"{seen.low:,.6g} to {seen.high:,.6g}"
    if abs(seen.skew) > SKEWED and max(-seen.low, seen.high) > LARGE:
        why = f"{span}, skew {seen.skew:.0f}: log1p"
        return Inferred(seen.name, ("numeric",), why, {"log1p": True})
    return Inferred(seen.name, ("numeric",), span)


def _with_networks(found: list[Inferred]) -> list[Inferred]:
    """The first address points to the second: are both in one network?"""
    first, second, *_ = [*(c.name for c in found if "ip" in c.roles), "", ""]
    if not second:
        return found
    linked = {"same_network_as": second}
    return [Inferred(c.name, c.roles, c.why, linked) if c.name == first else c for c in found]
