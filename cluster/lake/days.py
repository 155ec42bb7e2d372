"""Days as values: dates, declared integers or texts, each with one name and one order."""

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from models.refusal import Refusal

Kind = Literal["date", "integer", "text"]

ALL = "all"  # the one day of an input without a layout
# What Hive and Spark call the partition of the rows whose key is null.
NULL = "__HIVE_DEFAULT_PARTITION__"

# 2026-11-20, 20261120, 2026_11_20, 2026/11/20; with an hour as Firehose (2026-11-20-05) and Spark
# (2026-11-20 05:00:00) write it.
_DATE = re.compile(
    r"(\d{4})(?:([-_./])(\d{1,2})\2(\d{1,2})|(\d\d)(\d\d))"
    r"(?:[-T _](\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.\d+)?)?)?(?:Z|\+00:?00)?)?",
    re.ASCII,
)
# The first numbers of `day_order`.
DATE, INTEGER, TEXT = range(3)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_AROUND = " \t\r\n'\"`\u2018\u2019\u201c\u201d"  # what is pasted with a day
_NAMED = 3  # days before, and after, a day that is not there, which a message names


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


def name_day(text: str, days: Sequence[str] = ()) -> str:
    """The name, among days with these names, of the day that a person writes.

    A person may write a date in each form that `read_date` reads, an integer with zeros before it,
    and either in quotes or with the key of its folder. Raises `Refusal` for an hour of a day.

    >>> name_day("dt=20261108"), name_day(" '2026-11-8'"), name_day("08", ["8", "9"])
    ('2026-11-08', '2026-11-08', '8')
    """
    bare = text.strip(_AROUND)
    value = bare.rpartition("=")[2].strip(_AROUND)
    for known in (text, bare, value):
        if known in days:
            return known
    found = read_date(value)
    if found is not None and found[1] is not None:
        raise Refusal(f"{value!r} names an hour, and a run takes a whole day: expected {found[0]}")
    if days and all(read_integer(day) is not None for day in days):
        number = read_integer(f"{found[0]:%Y%m%d}" if found else value)
        return bare if number is None else str(number)
    return bare if found is None else found[0].isoformat()


def name_nearest(day: str, days: Sequence[str]) -> str:
    """Which days there are near a day that is not there, for a message. `days` are in order."""
    if not days:
        return "it has none"
    if len(days) == 1:
        return f"its only day is {days[0]}"
    place = bisect.bisect(list(map(day_order, days)), day_order(day))
    nearest = ", ".join(days[max(0, place - _NAMED) : place + _NAMED])
    return f"it has {len(days)} days, the nearest are {nearest}"


@dataclass(frozen=True)
class DayRange:
    """Days from first to last, both included, as a person writes them (see `name_day`).

    >>> DayRange.parse("20261108..20261109").choose(["2026-11-07", "2026-11-08", "2026-11-09"])
    ('2026-11-08', '2026-11-09')
    """

    first: str
    last: str

    @classmethod
    def parse(cls, text: str) -> "DayRange":
        """`2026-01-01..2026-01-13`, or one day. Raises ValueError."""
        first, dots, last = (part.strip(_AROUND) for part in text.partition(".."))
        last = last if dots else first
        if not first or not last or ".." in last:
            raise ValueError(f"expected FIRST..LAST or one day, found {text!r}")
        # The days of the input say whether digits are dates or integers, which differ in order.
        named = name_day(first), name_day(last)
        if all(day_order(one) > day_order(other) for one, other in ((first, last), named)):
            raise ValueError(f"expected FIRST..LAST or one day, found {text!r}")
        return cls(first, last)

    def choose(self, days: Sequence[str]) -> tuple[str, ...]:
        """Those of the days, which are in order, that are in the range."""
        first, last = (day_order(name_day(end, days)) for end in (self.first, self.last))
        return tuple(day for day in days if first <= day_order(day) <= last)

    def require(self, days: Sequence[str], where: str) -> tuple[str, ...]:
        """As `choose`. Raises `Refusal` where none is in the range; `where` names what has them."""
        if chosen := self.choose(days):
            return chosen
        one = self.first == self.last
        wanted = f"day {self.first}" if one else f"day from {self.first} to {self.last}"
        nearest = name_nearest(name_day(self.first, days), days)
        raise Refusal(f"{where} has no {wanted}: {nearest}")
