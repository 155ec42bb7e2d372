"""Guesses the role of each column from its name, its type and a sample of rows."""

import ipaddress
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.inference.signal_roles import infer_signal_role, is_prose
from jobs.spec.columns import FLAG_COLUMNS

FEW = 64  # distinct values of a category: the default of max_values
# Least share of rows that the FEW most frequent texts cover, to make a category of them and
# "other". At least half of the texts of a name or an id are rare.
COVERED = 0.9
CODES = 32  # distinct integers that may be codes instead of amounts
SKEWED = 3.0  # an exponential distribution has skew 2, a log-normal with sigma 1 has 6
LARGE = 10.0  # log1p changes little below: rates and shares keep their scale
MOST_ADDRESSES = 200  # values to parse

ANSWER = re.compile(r"label|attack|fraud|anomal|malicious|incident|outlier")
LABELS = {"label", "is_fraud", "fraud", "is_anomaly", "anomaly", "outlier", "class", "target"}
ID_WORDS = {"id", "uid", "uuid", "guid", "key"}
ENTITY_WORDS = {"user", "customer", "client", "account", "card", "terminal", "merchant", "host"}
ENTITY_WORDS |= {"device", "machine", "sensor", "entity", "src", "source", "orig"}
SIDE_WORDS = {"src", "source", "orig"}  # which side a text names; a number may be any amount
COUNT_WORDS = {"ct", "cnt", "count", "num", "number", "total", "sum", "mean", "avg"}
CODE_WORDS = {"proto", "protocol", "code", "type", "category", "class", "status", "kind", "mode"}


@dataclass(frozen=True)
class Inferred:
    """The guess for a column and the reason. A column without roles is left out of the spec."""

    name: str
    roles: tuple[str, ...]
    why: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """Statistics of a sample of one column; for numbers also extremes and skew."""

    name: str
    type: pa.DataType
    rows: int
    nulls: int
    distinct: int
    low: Any = None
    high: Any = None
    skew: float = 0.0
    covered: float = 0.0  # of texts: share of the rows with a value that has one of the FEW codes
    addresses: bool = False
    prose: bool = False
    signal: tuple[str, str] | None = None  # role and reason, for lists and bytes

    @property
    def words(self) -> set[str]:
        """The words of the name: `src` and `port` for `srcPort` and `src_port`."""
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
    """One guess for each name of a column, in the order of the table.

    >>> [guess.roles for guess in infer(pa.table({"dst_port": [53, 80, 443, 80]}))]
    [('port',)]
    """
    counts = Counter(table.column_names)
    taken: set[str] = set()
    found = []
    for name in counts:
        if counts[name] > 1:
            column = Inferred(
                name, (), f"{counts[name]} columns have this name: rename all but one"
            )
        elif not name or not name.isprintable():
            column = Inferred(name, (), "the name has characters that cannot be printed")
        else:
            column = _guess(_measure(name, table[name]), taken)
        if set(column.roles) & {"id", "time", "entity", "keep"} and name.lower() in FLAG_COLUMNS:
            column = Inferred(name, (), "the table of flags has its own column of this name")
        taken.update(column.roles)
        found.append(column)
    return _link_networks(found)


def _measure(name: str, column: pa.ChunkedArray) -> Facts:
    """The statistics of a sample of one column."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    known = column.drop_null()
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type) or binary:
        facts = Facts(name, column.type, len(column), column.null_count, len(known))
        return replace(facts, signal=infer_signal_role(column))
    distinct = known.unique()
    facts = Facts(name, column.type, len(column), column.null_count, len(distinct))
    if facts.number and len(known):
        values = known.cast(pa.float64(), safe=False)
        values = values.filter(pc.is_finite(values))
        extremes = pc.min_max(values)
        low, high = extremes["min"].as_py(), extremes["max"].as_py()
        skew = pc.skew(values, min_count=3).as_py() or 0.0
        return replace(facts, low=low, high=high, skew=skew)
    if facts.text and len(known):
        addresses = all(map(_is_address, distinct[:MOST_ADDRESSES].to_pylist()))
        counts = pc.value_counts(known.combine_chunks()).field("counts")
        top = pc.sum(counts.take(pc.array_sort_indices(counts, "descending")[:FEW])).as_py()
        covered = top / len(known)
        return replace(facts, addresses=addresses, prose=is_prose(distinct), covered=covered)
    return facts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _guess(facts: Facts, taken: set[str]) -> Inferred:
    """The first rule that applies. Rules about names come before rules about values."""
    guess = next(_rules(facts, taken))
    if not guess.roles or not facts.nulls:
        return guess
    share = f"null in {facts.nulls / facts.rows:.1%} of the rows"
    return Inferred(guess.name, guess.roles, f"{guess.why}, {share}", guess.options)


def _rules(facts: Facts, taken: set[str]) -> Iterator[Inferred]:
    def guess(*roles: str, why: str, **options: Any) -> Inferred:
        return Inferred(facts.name, roles, why, options)

    several = f"{facts.distinct:,} distinct in {facts.rows:,} rows"
    lower = facts.name.lower()
    if facts.distinct == 0:
        yield guess(why="all values are null")
    if lower in LABELS and facts.two_valued and "label" not in taken:
        yield guess("label", why="0 and 1, and the name of a label; for evaluation only")
    if ANSWER.search(lower):
        if "kind" not in taken and facts.distinct <= FEW and (facts.text or facts.whole):
            yield guess("kind", why="the name of a type of anomaly; for evaluation only")
        yield guess(why="the name of an answer, which a detector must not see")
    if facts.signal:
        yield guess(facts.signal[0], why=facts.signal[1])
    if pa.types.is_timestamp(facts.type) or pa.types.is_date32(facts.type):
        zone = "" if getattr(facts.type, "tz", "UTC") else ", without a time zone: read as UTC"
        roles = ("timestamp",) if "time" in taken else ("time", "timestamp")
        yield guess(*roles, why=f"{facts.type}{zone}")
    named = facts.text or facts.whole
    if named and facts.unique and facts.words & ID_WORDS and "id" not in taken:
        yield guess("id", why=f"unique in {facts.rows:,} rows")
    if facts.distinct == 1 and not facts.nulls:
        yield guess(why="constant in the sample")
    if facts.two_valued:
        yield guess("boolean", why="two values" if facts.distinct > 1 else "one value and nulls")
    if facts.text and facts.addresses:
        entity = ("entity",) if facts.words & ENTITY_WORDS else ()
        yield guess(*entity, "ip", why=f"addresses, {several}")
    if facts.whole and "port" in facts.words and facts.low >= 0 and facts.high <= 65535:
        yield guess("port", why=f"{facts.low:.0f} to {facts.high:.0f}")
    if named and facts.words & (ENTITY_WORDS | ID_WORDS) and not facts.unique:
        yield from _entity(facts, several)
    if facts.text:
        if facts.distinct <= FEW and facts.distinct * 2 <= facts.rows:
            yield guess("categorical", why=several)
        if facts.prose:
            yield guess("text", why=f"words, {several}")
        if facts.covered >= COVERED and FEW < facts.distinct <= facts.rows / 2:
            share = f"the {FEW} most frequent cover {facts.covered:.1%}"
            yield guess("categorical", why=f"{several}, {share}")
        yield guess(why=f"text, {several}: too many for a category")
    if facts.whole and facts.distinct <= CODES and facts.words & CODE_WORDS:
        yield guess("categorical", why=f"codes, {several}")
    if facts.number and facts.low is not None:
        yield _number(facts)
    yield guess(why=f"the type {facts.type} makes no feature")


def _entity(facts: Facts, several: str) -> Iterator[Inferred]:
    """A column that names who acted. Amounts such as `src_bytes`, and counters such as
    `ct_dst_src`, have these words but are none."""
    ends = re.split(r"[^a-z0-9]+", facts.name.lower())[-1]
    named = ends in ID_WORDS | ENTITY_WORDS - SIDE_WORDS and not facts.words & COUNT_WORDS
    if facts.text or named:
        few = ("categorical",) if facts.distinct <= FEW else ()
        yield Inferred(facts.name, ("entity", *few), several)


def _number(facts: Facts) -> Inferred:
    span = f"{facts.low:,.6g} to {facts.high:,.6g}"
    if abs(facts.skew) > SKEWED and max(-facts.low, facts.high) > LARGE:
        why = f"{span}, skew {facts.skew:.0f}: log1p"
        return Inferred(facts.name, ("numeric",), why, {"log1p": True})
    return Inferred(facts.name, ("numeric",), span)


def _link_networks(guesses: list[Inferred]) -> list[Inferred]:
    """The guesses, with the first address compared with the second: are both in one network?"""
    first, second, *_ = [*(c.name for c in guesses if "ip" in c.roles), "", ""]
    if not second:
        return guesses
    linked = {"same_network_as": second}
    return [Inferred(c.name, c.roles, c.why, linked) if c.name == first else c for c in guesses]
