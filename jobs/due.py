"""Which days a night scores, and why it leaves out the others."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from cluster.lake.days import ALL, day_order, is_ahead, name_day, to_date
from cluster.lake.input.partitions import Days


@dataclass(frozen=True)
class Skipped:
    """A day, or a folder of none, that a night does not score."""

    day: str
    reason: str
    waiting: bool = False  # whether it is a day that no later night will score either


def choose_due(
    days: Days, learned: Collection[str], first_day: str | None, today: date
) -> tuple[list[str], list[Skipped]]:
    """The complete days that a night has to score, in order, and the others.

    `learned` are the days that the first champion learned from. They are left out, except the one
    day `all` of an input without a layout, and except where `first_day` says from when to score.
    `today` (UTC) is not complete yet.
    """
    if first_day is not None:
        first_day = name_day(first_day, days.names)
    due, skipped = [], []
    for day in days.names:
        why = _find_reason(days, day, today)
        if why is None and first_day is not None and day_order(day) < day_order(first_day):
            why = Skipped(day, f"before nightly.first_day, {first_day}")
        elif why is None and first_day is None and day != ALL and day in learned:
            why = Skipped(day, "the first champion learned from it; `backfill` scores it")
        if why is None:
            due.append(day)
        else:
            skipped.append(why)
    skipped += [
        Skipped(one.name, f"{one.files:,} files: {one.reason}", one.is_day) for one in days.stray
    ]
    return due, skipped


def describe(skipped: list[Skipped]) -> list[str]:
    """A line for each reason, with the days that it holds for."""
    lines = []
    for reason, group in groupby(skipped, key=lambda one: one.reason):
        names = [one.day for one in group]
        more = f" .. {names[-1]} ({len(names)} days)" if len(names) > 1 else ""
        lines.append(f"{names[0]}{more}: {reason}")
    return lines


def _find_reason(days: Days, day: str, today: date) -> Skipped | None:
    """Why the day is not complete; None for a complete one."""
    when = to_date(day)
    if is_ahead(day, today):
        return Skipped(day, f"in the future (today is {today}, UTC)", waiting=True)
    if when is not None and when >= today:
        return Skipped(day, "not complete: it is not over yet (UTC)")
    missing = days.find_missing_hour(day)
    if missing is None:
        return None
    later = days.names[days.names.index(day) + 1 :]
    if any(days.find_missing_hour(one) is None for one in later):
        text = f"{missing}, and a later day has it; `score --day {day}` scores it as it is"
        return Skipped(day, text, waiting=True)
    return Skipped(day, f"not complete: {missing}")
