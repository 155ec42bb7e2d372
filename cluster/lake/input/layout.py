"""How the folders of an input name its days. Pure: it sees names, never a store.

A layout is a row of parts, each of which matches one folder on the way to a file. A part is a key
of a folder `key=value`, or a plain folder; its value is a pattern of strftime, or free. What a
spec says in `input.partition` becomes a layout:

    day                          day=2026-11-20/         one key; dates, integers or texts
    [year, month, day, hour]     year=2026/month=11/day=20/hour=05/
    %Y/%m/%d                     2026/11/20/             plain folders, as Firehose writes them
    dt=%Y%m%d/hr=%H              dt=20261120/hr=05/

Other folders may stand between, above and below the parts. `place` says of the folders of a path
that they name a day, or that a folder below may (`Above`), or that none can (`Stray`, with the
reason). The caller walks a store with it and opens only what is `Above`.

The values of a single free key have one kind: the declared one, else the kind that is found, dates
before integers before texts. So one odd name among dates never turns them into texts. What has
another kind is set aside. A null (`__HIVE_DEFAULT_PARTITION__`) and an empty value are of no kind.

A day has one name, whatever its folders are called: `2026-11-08` for `day=20261108` and for
`year=2026/month=11/day=8`, `8` for `day=08` among integers. Two folders may hold one day.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import get_args
from urllib.parse import unquote

from cluster.lake.days import NULL, Kind, read_date, read_integer
from cluster.lake.storage.store import find_fault, print_name

KINDS: tuple[Kind, ...] = get_args(Kind)
LAST_HOUR = 23

# Names of keys that are a part of a date; any other key of a list is a whole date.
_UNITS = {
    **dict.fromkeys(("year", "yyyy", "yr", "y"), "%Y"),
    **dict.fromkeys(("month", "mm", "mon", "mo", "m"), "%m"),
    **dict.fromkeys(("day", "dd", "dy", "d"), "%d"),
    **dict.fromkeys(("hour", "hh", "hr", "h"), "%H"),
}
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "y": r"(?P<y>\d{2})",
    "m": r"(?P<m>\d{1,2})",
    "d": r"(?P<d>\d{1,2})",
    "H": r"(?P<H>\d{1,2})",
    "j": r"(?P<j>\d{1,3})",
}
_SHORT = {"F": "%Y-%m-%d"}
_PATTERNS = (  # of plain folders, as `propose` tries them
    "%Y/%m/%d",
    "%Y-%m-%d",
    "%Y%m%d",
)


@dataclass(frozen=True)
class Named:
    """Folders that name a day, or a value of which `settle` decides."""

    value: str
    hour: int | None = None


@dataclass(frozen=True)
class Above:
    """Folders that name no day yet; `known` are the parts of a date that they name."""

    known: Mapping[str, int]

    def may_hold(self, day: date) -> bool:
        """Whether the day may be in a folder below."""
        parts = {"Y": day.year, "y": day.year % 100, "m": day.month, "d": day.day}
        parts["j"] = day.timetuple().tm_yday
        return all(parts.get(name, value) == value for name, value in self.known.items())


@dataclass(frozen=True)
class Stray:
    """Folders that can hold no day of the layout."""

    reason: str
    is_day: bool = False  # whether they look like a day that somebody misspelled


@dataclass(frozen=True)
class Part:
    """One folder on the way to a day."""

    key: str | None  # None for a plain folder
    pattern: str  # of strftime; "" for a free value

    @property
    def text(self) -> str:
        return self.pattern if self.key is None else f"{self.key}={self.pattern or '…'}"

    def read(self, value: str) -> dict[str, int] | None:
        """The parts of a date in a value; None where it does not match."""
        if self.pattern == "%F":  # a whole date, in any form of one
            whole = read_date(value)
            when = whole[0] if whole else None
            return {"Y": when.year, "m": when.month, "d": when.day} if when else None
        found = _compile(self.pattern).fullmatch(value)
        return {name: int(digits) for name, digits in found.groupdict().items()} if found else None


@dataclass(frozen=True)
class Layout:
    """The parts of the path that name a day, and the declared kind of a free value."""

    parts: tuple[Part, ...]
    kind: Kind | None = None

    @property
    def text(self) -> str:
        """`day=…`, `year=%Y/month=%m/day=%d`: for messages."""
        return "/".join(part.text for part in self.parts)

    @property
    def keys(self) -> frozenset[str]:
        """Keys of folders that name the day, and so are no columns."""
        return frozenset(part.key for part in self.parts if part.key is not None)

    @property
    def hourly(self) -> bool:
        return any("%H" in part.pattern for part in self.parts)

    def place(self, folders: Sequence[str]) -> Named | Above | Stray:
        """What the folders of a path, from the input's own folder on, say of the day below them."""
        return self._match(0, 0, folders, {}) or Above({})

    def _match(
        self, part: int, first: int, folders: Sequence[str], known: Mapping[str, int]
    ) -> Named | Above | Stray | None:
        """The answer of the parts from `part` on, for the folders from `first` on.

        None where a row of plain folders breaks off, as `2026/11/notes` does.
        """
        if part == len(self.parts):
            return _name(known)
        wanted = self.parts[part]
        follows = part > 0 and wanted.key is None and self.parts[part - 1].key is None
        begun: Above | None = None
        for place in range(first, min(first + 1, len(folders)) if follows else len(folders)):
            values = self._read(wanted, folders[place])
            if isinstance(values, (Named, Stray)):
                return values
            if values is None:
                continue
            found = self._match(part + 1, place + 1, folders, {**known, **values})
            if isinstance(found, (Named, Stray)) or wanted.key is not None:
                return found
            begun = begun or found
        if follows and first < len(folders):
            return begun
        return begun or Above(known)

    def _read(self, wanted: Part, folder: str) -> dict[str, int] | Named | Stray | None:
        if wanted.key is None:
            return wanted.read(unquote(folder))
        key, equals, value = folder.partition("=")
        if not equals or unquote(key).strip().casefold() != wanted.key.casefold():
            return None
        if fault := find_fault(value := unquote(value)):
            return Stray(f"a value with {fault}" if value else "an empty value")
        if value == NULL:
            return Stray("rows whose key is null: they are of no day")
        if unquote(key) != wanted.key:
            return Stray(f"expected the key {wanted.key!r}, found {print_name(key)!r}", is_day=True)
        if not wanted.pattern:
            return Named(value)
        values = wanted.read(value)
        return Stray(f"expected {wanted.text}") if values is None else values

    def settle(self, values: Iterable[str]) -> Kind:
        """The kind of the days: the declared one, else the first that any of the values has."""
        if self.kind is not None:
            return self.kind
        values = tuple(values)
        if any(read_date(value) for value in values):
            return "date"
        return "integer" if any(read_integer(value) is not None for value in values) else "text"


def read_value(named: Named, kind: Kind) -> Named | Stray:
    """The day's own name, for a value of this kind."""
    value = named.value
    if kind == "date":
        found = read_date(value)
        if found is None:
            return Stray(f"no date: expected {kind}s such as 2026-01-31, as other folders have")
        when, hour = found
        return Named(when.isoformat(), hour if named.hour is None else named.hour)
    if kind == "integer":
        number = read_integer(value)
        return Stray("no integer, as other folders have") if number is None else Named(str(number))
    return named


def parse_layout(partition: str | Sequence[str], kind: Kind | None = None) -> Layout:
    """The layout that `input.partition` of a spec names. Raises ValueError with what is expected.

    >>> parse_layout("%Y/%m/%d").place(["eu", "2026", "11", "8"])
    Named(value='2026-11-08', hour=None)
    >>> parse_layout(["year", "month", "day"]).text
    'year=%Y/month=%m/day=%d'
    """
    if isinstance(partition, str):
        parts = tuple(map(_parse_part, partition.split("/")))
        if len(parts) == 1 and parts[0].key is None and "%" not in partition:
            parts = (Part(partition, ""),)
    else:
        parts = _parse_keys(tuple(partition))
    named = "".join(part.pattern for part in parts).replace("%F", "%Y%m%d")
    directives = re.findall("%(.)", named)
    if any(part.key is not None and not _is_key(part.key) for part in parts):
        raise ValueError("keys of folders `key=value`, such as day")
    if not directives and len(parts) == 1 and parts[0].key is not None:
        return Layout(parts, kind)
    days = ({"Y", "m", "d"}, {"y", "m", "d"}, {"Y", "j"}, {"y", "j"})
    free = [part for part in parts if not part.pattern]
    if free or len(set(directives)) < len(directives) or set(directives) - {"H"} not in days:
        raise ValueError(
            "a pattern that names a date, once: %Y, %m and %d, with or without %H, such as "
            "%Y/%m/%d or dt=%Y%m%d/hour=%H"
        )
    if kind not in (None, "date"):
        raise ValueError("one key, since the values are declared as " + f"{kind}s")
    return Layout(parts, "date")


def list_columns(key: str, layout: Layout | None) -> dict[str, str | None]:
    """The columns that a file's folders `key=value` name, with their value in all of its rows.

    The folders of the day are none. A null has the value None; of two folders of one key the
    deeper counts.

    >>> list_columns("region=eu/day=2026-01-31/a.parquet", parse_layout("day"))
    {'region': 'eu'}
    """
    columns: dict[str, str | None] = {}
    own = {name.casefold() for name in layout.keys} if layout else set()
    for folder in key.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        name = unquote(name)
        if equals and _is_key(name) and name.casefold() not in own:
            value = unquote(value)
            columns[name] = None if value in (NULL, "") else value
    return columns


def propose(paths: Iterable[Sequence[str]]) -> str | list[str] | None:
    """The `input.partition` for files with these folders; None where no folder names a day.

    Keys that form a date come first, then a key of dates, then plain folders that name a date, then
    a key that is called like a day, then one with the values train and test. Hours are a part of
    the day where a last hour is seen: some writers leave out the hours without rows. What names
    less than half of the folders that another names is a stray beside it.

    >>> propose([["region=eu", "day=2026-11-20"], ["region=us", "day=2026-11-20"]])
    'day'
    """
    paths = [tuple(path) for path in paths]
    counts = Counter(f.partition("=")[0] for path in paths for f in path if "=" in f)
    keys = list(counts)
    by_unit: dict[str, str] = {}
    # The usual spelling first: a stray `Day=` never takes the place of `day=`.
    for key in sorted(keys, key=lambda key: (-counts[key], key != key.casefold())):
        if (unit := _UNITS.get(key.casefold())) is not None:
            by_unit.setdefault(unit, key)
    dated = [key for key in keys if _holds_dates(key, paths)]
    folders = {_unquoted(f) for path in paths for f in path if f.partition("=")[0] in keys}
    hour = [by_unit["%H"]] if (by_unit.get("%H", ""), str(LAST_HOUR)) in folders else []
    candidates: list[str | list[str]] = []
    if {"%Y", "%m", "%d"} <= by_unit.keys():
        candidates.append([by_unit[unit] for unit in ("%Y", "%m", "%d")] + hour)
    candidates += [[key, *hour] if hour and hour != [key] else key for key in dated]
    candidates += _PATTERNS
    candidates += [key for key in keys if key.casefold() in ("day", "date", "dt", "ds")]
    candidates += [key for key in keys if {(key, "train"), (key, "test")} <= folders]
    named = [_count_named(one, paths) for one in candidates]
    most = max(named, default=0)
    fit = (one for one, count in zip(candidates, named, strict=True) if count and 2 * count >= most)
    return next(fit, None)


def _count_named(partition: str | list[str], paths: Sequence[Sequence[str]]) -> int:
    layout = parse_layout(partition)
    return sum(isinstance(layout.place(path), Named) for path in paths)


def _holds_dates(key: str, paths: Iterable[Sequence[str]]) -> bool:
    found = {_unquoted(folder) for path in paths for folder in path}
    return any(name == key and read_date(value) for name, value in found)


def _unquoted(folder: str) -> tuple[str, str]:
    name, _, value = folder.partition("=")
    return name, unquote(value)


def _parse_part(text: str) -> Part:
    key, equals, pattern = text.partition("=")
    if not equals:
        key, pattern = "", text
    if not pattern or (pattern == text and not text):
        raise ValueError("folders with names, such as %Y/%m/%d")
    try:
        _compile(pattern)
    except re.error:
        raise ValueError("each of %Y, %m, %d and %H once in a folder") from None
    return Part(key if equals else None, pattern)


def _parse_keys(keys: tuple[str, ...]) -> tuple[Part, ...]:
    """Keys that form a date: year, month, day and hour by name or, with other names, by place."""
    if len(keys) == 1:
        return (Part(keys[0], ""),)
    units = [_UNITS.get(key.casefold(), "") for key in keys]
    if len(keys) == 2 and units[1] == "%H":
        return (Part(keys[0], "%F"), Part(keys[1], "%H"))
    if not any(units):
        units = ["%Y", "%m", "%d", "%H"][: len(keys)]
    elif not all(units):  # other keys are columns
        left = tuple(key for key, unit in zip(keys, units, strict=True) if unit)
        return _parse_keys(left) if len(left) > 1 or units[-1] == "%d" else ()
    return tuple(Part(key, unit) for key, unit in zip(keys, units, strict=False))


def _is_key(text: str) -> bool:
    return (
        bool(text) and text.isprintable() and not set(text) & set("/\\=%") and text[0] not in "._"
    )


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """The pattern of strftime as a regular expression; digits side by side have fixed widths."""
    for short, long in _SHORT.items():
        pattern = pattern.replace(f"%{short}", long)
    pieces = re.split(r"(%.)", pattern)
    text = ""
    for place, piece in enumerate(pieces):
        if not piece.startswith("%"):
            text += re.escape(piece)
            continue
        if piece[1] not in _DIRECTIVES:
            raise ValueError(f"%Y, %y, %m, %d, %j, %H or %F, found {piece}")
        after, before = pieces[place + 1 : place + 2], pieces[place - 1 : place]
        close = (before == [""] and place > 1) or (after == [""] and place + 2 < len(pieces))
        one = _DIRECTIVES[piece[1]]
        text += re.sub(r"\{1,(\d)\}", r"{\1}", one) if close else one
    return re.compile(text, re.ASCII)


def _name(known: Mapping[str, int]) -> Named | Stray:
    year = known["Y"] if "Y" in known else 2000 + known["y"]
    try:
        if "j" in known:
            when = date(year, 1, 1) + timedelta(days=known["j"] - 1)
            if when.year != year or known["j"] < 1:
                raise ValueError
        else:
            when = date(year, known["m"], known["d"])
    except (ValueError, OverflowError):
        return Stray("no date of the calendar")
    hour = known.get("H")
    if hour is not None and hour > LAST_HOUR:
        return Stray(f"no hour: expected 0 to {LAST_HOUR}")
    return Named(when.isoformat(), hour)
