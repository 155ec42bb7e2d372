"""Days as values: dates, declared integers or texts, each with one name and one order."""

import re
from datetime import date, datetime
from typing import Literal

Kind = Literal["date", "integer", "text"]

ALL = "all"  # the one day of an input without a layout
# What Hive and Spark call the partition of the rows whose key is null.
NULL = "__HIVE_DEFAULT_PARTITION__"

# 2026-11-20, 20261120, 2026_11_20, 2026/11/20; with an hour as Firehose (2026-11-20-05) and Spark
# (2026-11-20 05:00:00) write it.
_DATE = re.compile(
    r"(\d{4})(?:([-_./])(\d{1,2})\2(\d{1,2})|(\d\d)(\d\d))"
    r"(?:[-T _](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.\d+)?)?)?Z?)?",
    re.ASCII,
)
# The first numbers of `day_order`.
DATE, INTEGER, TEXT = range(3)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)


def read_date(text: str) -> tuple[date, int | None] | None:
    """The date that a text names, and the hour where it names one; None for another text.

    Midnight to the second is the date alone: so a timestamp column becomes a partition of days.

    >>> read_date("20261120"), read_date("2026-11-20-05"), read_date("2026-11-31")
    ((datetime.date(2026, 11, 20), None), (datetime.date(2026, 11, 20), 5), None)
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, _, month, day, month2, day2, hour, minute, second = found.groups()
    try:
        when = datetime(int(year), int(month or month2), int(day or day2), int(hour or 0))
    except ValueError:
        return None
    midnight = hour == "00" and minute == second == "00"
    return when.date(), None if hour is None or midnight else when.hour


def read_integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def to_date(day: str) -> date | None:
    """The date of a day's name; None for a day that is no date."""
    try:
        return date.fromisoformat(day) if _DAY.fullmatch(day) else None
    except ValueError:
        return None


def is_ahead(day: str, today: date) -> bool:
    """Whether the day is a date after tomorrow: a mistake, since no place is a day ahead of UTC."""
    when = to_date(day)
    return when is not None and when.toordinal() > today.toordinal() + 1


def day_order(day: str) -> tuple[int, int, str]:
    """The sort key of a day's name: dates by date, then integers by value, then texts.

    >>> sorted(["10", "9", "all", "2026-11-02", "11"], key=day_order)
    ['2026-11-02', '9', '10', '11', 'all']
    """
    if (when := to_date(day)) is not None:
        return DATE, when.toordinal(), ""
    if (number := read_integer(day)) is not None:
        return INTEGER, number, day
    return TEXT, 0, day
