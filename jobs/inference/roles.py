"""Guesses the role of each column from its name, its type and a sample of rows."""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.inference import names
from jobs.inference.answers import PICTURED, TRAIN, Answer, find_answers, is_division
from jobs.inference.signal_roles import infer_signal_role, is_prose
from jobs.spec.columns import FLAG_COLUMNS
from models.columns import TimeUnit
from models.decoding.decoder import NO_ADDRESS
from models.decoding.labels import decode_labels
from models.decoding.scalars import find_invalid_utf8
from models.decoding.times import decode_times

FEW = 64  # distinct values of a category: the default of max_values
# Least share of rows that the FEW most frequent texts cover, to make a category of them and
# "other". At least half of the texts of a name or an id are rare.
COVERED = 0.9
CODES = 32  # distinct integers that may be codes instead of amounts
SKEWED = 3.0  # an exponential distribution has skew 2, a log-normal with sigma 1 has 6
LARGE = 10.0  # log1p changes little below: rates and shares keep their scale
MOST_ADDRESSES = 200  # values to parse

EPOCHS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
YEAR_2000, YEAR_2040 = 946_684_800, 2_208_988_800  # seconds since 1970
WEEK = 7  # days that show each day of the week
COUNTED = 0.9  # least share of rows that are one more than the row before, to be a row counter
MOST_TIMES = 200  # texts to parse
LONGEST_NAME = 500  # characters: quoted, a key of YAML has 1,024 at most


@dataclass(frozen=True)
class Inferred:
    """The guess for a column and the reason. A column without roles is left out of the spec."""

    name: str
    roles: tuple[str, ...]
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    boolean: bool = False  # whether the column holds true and false
    anomalies: float = 0.0  # share of the sample's rows, by a label
    learned: str | None = None  # the value of the rows to learn from, where a set is divided
    steps: bool = False  # whether a time counts steps or seconds from a start, not since 1970


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
    times: bool = False  # texts in ISO 8601
    beyond: bool = False  # some are times outside of the years 1 to 9999
    codes: bool = False  # of numbers: all are whole
    counter: bool = False  # each row has one more than the row before
    values: tuple[Any, ...] = ()  # the distinct ones, of few
    days: float = 0.0  # from the first to the last, of times
    prose: bool = False
    signal: tuple[str, str] | None = None  # role and reason, for lists and bytes

    @property
    def words(self) -> set[str]:
        return names.split_words(self.name)

    @property
    def temporal(self) -> bool:
        return bool(pa.types.is_timestamp(self.type) or pa.types.is_date(self.type))

    @property
    def unit(self) -> TimeUnit | None:
        """The unit of numbers that are times since 1970, by the name and the extremes."""
        if not self.number or self.low is None or not self.words & names.TIME_WORDS:
            return None
        for unit, factor in EPOCHS.items():
            if YEAR_2000 * factor <= self.low and self.high <= YEAR_2040 * factor:
                return unit  # type: ignore[return-value]
        return None

    @property
    def text(self) -> bool:
        return bool(pa.types.is_string(self.type))

    @property
    def whole(self) -> bool:
        return bool(pa.types.is_integer(self.type))

    @property
    def named(self) -> bool:
        """Whether the values may name something."""
        return self.text or self.whole

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


def infer(table: pa.Table, training_days: int = 0) -> list[Inferred]:
    """One guess for each name of a column, in the order of the table.

    `training_days` says how many days a training would see: with fewer than a week, the day of the
    week is no feature, since a new one would be flagged whole.

    >>> [guess.roles for guess in infer(pa.table({"dst_port": [53, 80, 443, 80]}))]
    [('port',)]
    """
    counts = Counter(table.column_names)
    facts = {
        name: _measure(name, table[name])
        for name in counts
        if counts[name] == 1 and name and name.isprintable() and len(name) <= LONGEST_NAME
    }
    label, time = _choose_label(facts.values()), _choose_time(facts.values())
    told: dict[str, Answer] = {}
    if label:
        pictured = any(one.signal and one.signal[0] in PICTURED for one in facts.values())
        normal = label.options.get("normal", ())
        told = find_answers(table, label.name, normal, pictured)
        label = replace(label, anomalies=_count_anomalies(table[label.name], normal))
    taken: set[str] = set()
    found = []
    for name in counts:
        if counts[name] > 1:
            column = Inferred(
                name, (), f"{counts[name]} columns have this name: rename all but one"
            )
        elif name not in facts:
            column = Inferred(name, (), _describe_name(name))
        elif label and name == label.name:
            column = _note_nulls(facts[name], label)
        elif name in told and not names.ANSWER.search(_plain(name)):
            kind = told[name].kind and facts[name].named and "kind" not in taken
            column = Inferred(name, ("kind",) if kind else (), told[name].why)
        elif is_division(name, facts[name].values):
            why = "divides the rows of a set; no night has it"
            column = Inferred(name, (), why, learned=_find_train(facts[name].values))
        elif name == time:
            column = _note_nulls(facts[name], _guess_time(facts[name], training_days))
        else:
            column = _guess(facts[name], taken, training_days)
        if set(column.roles) & {"id", "time", "entity", "keep"} and name.lower() in FLAG_COLUMNS:
            column = Inferred(name, (), "the table of flags has its own column of this name")
        taken.update(column.roles)
        found.append(column)
    return _link_networks(found)


def _count_anomalies(column: pa.ChunkedArray, normal: Sequence[str | int]) -> float:
    """The share of anomalies among the rows with a label."""
    labels = decode_labels(column.combine_chunks(), normal).values
    known = labels[np.isfinite(labels)]
    return float(known.mean()) if len(known) else 0.0


def _find_train(values: Iterable[str]) -> str | None:
    return next((value for value in values if value.lower() == TRAIN), None)


def _choose_label(columns: Iterable[Facts]) -> Inferred | None:
    """The label: a column of 0 and 1 with the name of one, else one with a word for normal."""
    columns = [facts for facts in columns if names.ANSWER.search(_plain(facts.name))]
    for facts in columns:
        if _plain(facts.name) in names.LABELS and facts.two_valued:
            why = "0 and 1, and the name of a label; for evaluation only"
            boolean = bool(pa.types.is_boolean(facts.type))
            return Inferred(facts.name, ("label",), why, boolean=boolean)
    by_name = sorted(columns, key=lambda facts: _plain(facts.name) not in names.LABELS)
    for facts in by_name:
        normal = [v for v in facts.values if _plain(str(v)).rstrip(".") in names.NORMAL]
        if facts.text and normal:
            others = [value for value in facts.values if value not in normal]
            seen = f", such as {others[0]!r}" if others else ""
            why = f"values that mean normal; all others are anomalies{seen}; for evaluation only"
            return Inferred(facts.name, ("label",), why, {"normal": normal})
    return None


def _choose_time(columns: Iterable[Facts]) -> str | None:
    """The name of the column with the time: a time by its type or values, else a counter of steps
    by its name."""
    columns = list(columns)
    for facts in columns:
        if facts.distinct and (facts.temporal or facts.times or facts.unit) and not facts.beyond:
            return facts.name
    return next(
        (
            facts.name
            for facts in columns
            if facts.number
            and facts.low is not None
            and not facts.nulls
            and -YEAR_2040 <= facts.low <= facts.high <= YEAR_2040
            and _plain(facts.name) in names.ORDER_NAMES
        ),
        None,
    )


def _describe_name(name: str) -> str:
    """Why a column of this name is left out."""
    if len(name) > LONGEST_NAME:
        return f"the name has {len(name):,} characters: {LONGEST_NAME} at most can be in a spec"
    return "the name has characters that cannot be printed" if name else "the name is empty"


def _plain(name: str) -> str:
    return name.strip().lower()


def _measure(name: str, column: pa.ChunkedArray) -> Facts:
    """The statistics of a sample of one column."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    nulls = column.null_count
    if pa.types.is_string(column.type):
        column = _keep_readable(column)
    known = column.drop_null()
    binary = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
    binary = binary or pa.types.is_binary_view(column.type)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type) or binary:
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            known = known.filter(pc.greater(pc.list_value_length(known), 0))
        facts = Facts(name, column.type, len(column), nulls, len(known))
        return replace(facts, signal=infer_signal_role(column))
    distinct = known.unique()
    facts = Facts(name, column.type, len(column), nulls, len(distinct))
    if pa.types.is_temporal(column.type):  # Python has no value for some, such as the year 300,000
        if not facts.temporal:
            return facts
        times = known.combine_chunks()
        beyond = decode_times(times).broken is not None
        return replace(facts, beyond=beyond, days=_measure_days(times))
    if len(distinct) <= FEW:
        facts = replace(facts, values=tuple(distinct.to_pylist()))
    if facts.number and len(known):
        values = known.cast(pa.float64(), safe=False)
        values = values.filter(pc.is_finite(values))
        if not len(values):
            return replace(facts, distinct=0)
        extremes = pc.min_max(values)
        low, high = extremes["min"].as_py(), extremes["max"].as_py()
        skew = pc.skew(values, min_count=3).as_py() or 0.0
        facts = replace(facts, low=low, high=high, skew=skew, counter=_is_counter(values))
        codes = bool(pc.all(pc.equal(values, pc.floor(values))).as_py())
        facts = replace(facts, codes=codes and not _has_scale(facts.type))
        return replace(facts, days=(high - low) / (86_400 * EPOCHS[facts.unit or "s"]))
    if facts.text and len(known):
        texts = distinct.to_pylist()
        addresses = [text for text in texts if text != NO_ADDRESS][:MOST_ADDRESSES]
        counts = pc.value_counts(known.combine_chunks()).field("counts")
        top = pc.sum(counts.take(pc.array_sort_indices(counts, "descending")[:FEW])).as_py()
        facts = replace(facts, prose=is_prose(distinct), covered=top / len(known))
        times = _read_times(distinct[:: max(1, len(distinct) // MOST_TIMES)])
        if times is not None:
            facts = replace(facts, times=True, days=times)
        return replace(facts, addresses=bool(addresses) and all(map(_is_address, addresses)))
    return facts


def _keep_readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The texts with null for those that are no UTF-8, which a night sets aside."""
    chunks = []
    for chunk in column.chunks:
        wrong = find_invalid_utf8(chunk)
        none = pa.scalar(None, chunk.type)
        chunks.append(chunk if wrong is None else pc.if_else(pa.array(~wrong), chunk, none))
    return pa.chunked_array(chunks, column.type)


def _has_scale(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) and kind.scale)


def _is_counter(values: pa.ChunkedArray) -> bool:
    steps = np.diff(values.to_numpy())
    return len(steps) >= 20 and bool((steps == 1).mean() >= COUNTED)


def _read_times(texts: pa.Array) -> float | None:
    """Days from the first to the last of texts in ISO 8601; None where one is no time."""
    if any(len(text) < 8 or "-" not in text[4:5] for text in texts.to_pylist()):
        return None  # years and numbers
    return None if decode_times(texts).broken is not None else _measure_days(texts)


def _measure_days(times: pa.Array) -> float:
    """Days from the first to the last; 0 where there are no times."""
    extremes = pc.min_max(decode_times(times).instants.cast(pa.int64()))
    first, last = extremes["min"].as_py(), extremes["max"].as_py()
    return 0.0 if first is None else (last - first) / 86_400e6


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _guess(facts: Facts, taken: set[str], training_days: int) -> Inferred:
    """The first rule that applies. Rules about names come before rules about values."""
    return _note_nulls(facts, next(_rules(facts, taken, training_days)))


def _note_nulls(facts: Facts, guess: Inferred) -> Inferred:
    if not guess.roles or not facts.nulls:
        return guess
    share = f"null in {facts.nulls / facts.rows:.1%} of the rows"
    return replace(guess, why=f"{guess.why}, {share}")


def _guess_time(facts: Facts, training_days: int) -> Inferred:
    """The time of the rows, and a feature where each day of the week is seen."""
    why = _describe_time(facts)
    options: dict[str, Any] = {}
    if facts.number:
        options["unit"] = facts.unit or "s"
        if facts.unit is None:
            why = "counts steps or seconds from a start: gives the order of the rows"
            return Inferred(facts.name, ("time",), why, options, steps=True)
    if _sees_weekdays(facts, training_days):
        return Inferred(facts.name, ("time", "timestamp"), why, options)
    few = "no feature: fewer than 7 days to learn from, and a new weekday would be flagged whole"
    return Inferred(facts.name, ("time",), f"{why}; {few}", options)


def _sees_weekdays(facts: Facts, training_days: int) -> bool:
    return training_days >= WEEK or facts.days >= WEEK


def _describe_time(facts: Facts) -> str:
    if facts.unit:
        return f"{facts.unit} since 1970"
    if facts.times:
        return "text in ISO 8601"
    zone = "" if getattr(facts.type, "tz", "UTC") else ", without a time zone: read as UTC"
    return f"{facts.type}{zone}"


def _rules(facts: Facts, taken: set[str], training_days: int) -> Iterator[Inferred]:
    def guess(*roles: str, why: str, **options: Any) -> Inferred:
        return Inferred(facts.name, roles, why, options)

    several = f"{facts.distinct:,} distinct in {facts.rows:,} rows"
    if facts.distinct == 0:
        yield guess(why="all values are null, empty or not finite")
    if names.ANSWER.search(_plain(facts.name)):
        if "kind" not in taken and facts.distinct <= FEW and facts.named:
            yield guess("kind", why="the name of a type of anomaly; for evaluation only")
        yield guess(why="the name of an answer, which a detector must not see")
    if facts.signal:
        yield guess(facts.signal[0], why=facts.signal[1])
    if facts.beyond:
        yield guess(why=f"{_describe_time(facts)}, of which some are outside the years 1 to 9999")
    if facts.temporal or facts.times or facts.unit:
        seen = _sees_weekdays(facts, training_days) and not facts.times
        roles = ("timestamp",) if seen else ()
        unit = {"unit": facts.unit} if facts.unit and roles else {}
        few = "" if roles else ": a second time, no feature"
        yield guess(*roles, why=_describe_time(facts) + few, **unit)
    added = names.names_counter(facts.name) and not facts.words & names.ID_WORDS
    if facts.named and facts.unique and facts.words & names.ID_WORDS and "id" not in taken:
        yield guess("id", why=f"unique in {facts.rows:,} rows")
    added = added or (facts.number and names.names_counter(facts.name))
    if added or (facts.whole and facts.counter):
        yield guess(why="counts the rows, and says nothing of them")
    actor = facts.named and names.names_actor(facts.name, facts.text)
    if facts.distinct == 1 and not facts.nulls:
        if facts.addresses or actor:
            yield guess("keep", why="constant in the sample: copied into the flags, no feature")
        yield guess(why="constant in the sample")
    if facts.two_valued:
        yield guess("boolean", why="two values" if facts.distinct > 1 else "one value and nulls")
    if facts.text and facts.addresses:
        entity = ("entity",) if actor else ()
        none = f", {NO_ADDRESS!r} is none" if NO_ADDRESS in facts.values else ""
        yield guess(*entity, "ip", why=f"addresses, {several}{none}")
    if facts.codes and names.names_port(facts.name) and 0 <= facts.low <= facts.high <= 65535:
        yield guess("port", why=f"{facts.low:.0f} to {facts.high:.0f}")
    if actor and not facts.unique:
        category = ("categorical",) if facts.distinct <= FEW else ()
        yield guess("entity", *category, why=several)
    if facts.text:
        if facts.distinct <= FEW and facts.distinct * 2 <= facts.rows:
            yield guess("categorical", why=several)
        if facts.prose:
            yield guess("text", why=f"words, {several}")
        if facts.covered >= COVERED and FEW < facts.distinct <= facts.rows / 2:
            share = f"the {FEW} most frequent cover {facts.covered:.1%}"
            yield guess("categorical", why=f"{several}, {share}")
        yield guess(why=f"text, {several}: too many for a category")
    if facts.whole and facts.distinct <= CODES and facts.words & names.CODE_WORDS:
        yield guess("categorical", why=f"codes, {several}")
    if facts.whole and (names.names_postal_code(facts.name) or names.names_account(facts.name)):
        yield guess(why=f"a code and no amount, {several}: too many for a category")
    if facts.number and facts.low is not None:
        yield _number(facts)
    yield guess(why=f"the type {facts.type} makes no feature")


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
