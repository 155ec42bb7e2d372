"""Decodes times: timestamps, dates, numbers since 1970 in a declared unit, and ISO 8601 text."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.decoding.scalars import (
    Bools,
    Cells,
    Values,
    find_invalid_utf8,
    find_nulls,
    keep_first_rules,
)

PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, counted from Monday = 0
MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1e-3}
# 0001-01-01 and 9999-12-31 in seconds: the times that calendars have.
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
_ZONE = r"(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"
_PAST_MICROSECONDS = r"([.,]\d{6})\d+"


class Times(NamedTuple):
    """A column of times."""

    instants: pa.Array  # timestamp[us] [rows], in UTC; null where there is none, or a broken one
    broken: Bools | None  # [rows]: what is no time; None if all are
    rule: str = "unparsable"


def decode_times(array: pa.Array, unit: str | None = None) -> Times:
    """Decode to microseconds in UTC, rounded down. A time without a zone is taken as UTC.

    `unit` is that of numbers: s, ms, us or ns since 1970. Rules: out_of_range for what is outside
    of the years 1 to 9999, unparsable for text that is no ISO 8601, invalid_utf8.

    >>> decode_times(pa.array(["2026-01-31T12:00:00Z", "noon"])).broken
    array([False,  True])
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_date(kind):
        return decode_times(array.cast(pa.timestamp("s")))
    if pa.types.is_timestamp(kind):
        return _decode_numbers(array.cast(pa.int64()), kind.unit)
    if pa.types.is_null(kind):
        return Times(pa.nulls(len(array), pa.timestamp("us")), None)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _decode_texts(array.cast(pa.string()))
    return _decode_numbers(array, unit or "s")


def _decode_numbers(array: pa.Array, unit: str) -> Times:
    factor, null = MICROSECONDS[unit], np.asarray(array.is_null())
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64(), safe=False)
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore"):
        seconds = values / (1e6 / factor)
        broken = ~((seconds >= _FIRST) & (seconds <= _LAST)) & ~null
    known = np.where(broken, 0, values)
    if unit == "ns":
        micros = np.floor_divide(known, 1_000)
    elif values.dtype.kind == "f":
        micros = np.floor(known * factor)
    else:
        micros = known.astype(np.int64) * int(factor)
    instants = pa.array(micros.astype(np.int64), pa.timestamp("us"), mask=null | broken)
    return Times(instants, broken if broken.any() else None, "out_of_range")


def _decode_texts(array: pa.Array) -> Times:
    unreadable = find_invalid_utf8(array)
    if unreadable is not None:
        kept = pc.if_else(pa.array(~unreadable), array, pa.scalar(None, pa.string()))
        times = _decode_texts(kept)
        return Times(times.instants, unreadable, "invalid_utf8")
    texts = pc.replace_substring_regex(array, _PAST_MICROSECONDS, r"\1")
    try:
        zoned = pc.any(pc.match_substring_regex(texts, "[T ].*" + _ZONE)).as_py()
        whole = texts.cast(pa.timestamp("us", "UTC" if zoned else None))
        return Times(whole.cast(pa.timestamp("us")), None)
    except pa.ArrowInvalid:  # some have a zone and some have not, or some are no times
        parsed = [None if text is None else _parse(text) for text in texts.to_pylist()]
    instants = pa.array(parsed, pa.timestamp("us"))
    broken = np.asarray(pc.and_not(instants.is_null(), array.is_null()))
    return Times(instants, broken if broken.any() else None)


def _parse(text: str) -> datetime | None:
    """The moment in UTC, without a zone."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def decode_timestamp(array: pa.Array, unit: str | None = None) -> Cells:
    """Decode to sine and cosine of the hour of day (not for dates) and of the weekday, in UTC.

    Arrow stores a timestamp with a zone in UTC, so no conversion is needed. Rules: as in
    `decode_times`.
    """
    null, problems = find_nulls(array), {}
    if not (pa.types.is_timestamp(array.type) or pa.types.is_date32(array.type)):
        times = decode_times(array, unit)
        array = times.instants
        problems = {} if times.broken is None else {times.rule: times.broken}
    if pa.types.is_date32(array.type):
        days = np.asarray(array.cast(pa.int32()).fill_null(0)).astype(np.int64)
        return Cells(_encode_weekday(days), null, ())
    instants = np.asarray(array.cast(pa.int64()).fill_null(0))
    per_day = PER_DAY[array.type.unit]
    days = instants // per_day  # rounds down, also before 1970
    angle = (instants - days * per_day) * (2 * np.pi / per_day)
    return Cells(
        (np.sin(angle), np.cos(angle), *_encode_weekday(days)), null, keep_first_rules(problems)
    )


def _encode_weekday(days: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    angles = np.arange(7) * (2 * np.pi / 7)  # Monday is at angle 0
    weekday = (days + EPOCH_WEEKDAY) % 7
    return np.sin(angles)[weekday], np.cos(angles)[weekday]
