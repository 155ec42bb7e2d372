"""What histories and windows should say, slowly: every row against every other, in plain Python."""

import math
from dataclasses import dataclass
from typing import Any

from cluster.lake.derived.history import DerivedColumn, parse_span
from cluster.lake.derived.windows import Window


@dataclass(frozen=True)
class Row:
    """One row; its place in the list of all is its place in the input."""

    time: int | None  # microseconds since 1970
    entity: str | None
    amount: float | None = None
    place: int | None = None
    label: int | None = None
    counts: bool = True  # whether the input's filter lets it in

    @property
    def usable(self) -> bool:
        return self.counts and self.time is not None and self.entity is not None


def history(rows: list[Row], at: int, column: DerivedColumn) -> Any:
    """The value of a derived column for row `at`, when `rows` is all there is so far."""
    row = rows[at]
    if not row.usable:
        return None
    assert row.time is not None
    delay = parse_span(column.delay) if column.delay else 0
    seen = [
        other
        for place, other in enumerate(rows)
        if other.usable
        and other.time is not None
        and other.entity == row.entity
        and row.time - delay - parse_span(column.horizon) <= other.time
        and (other.time + delay, place) < (row.time, at)
    ]
    amounts = [r.amount for r in seen if r.amount is not None and math.isfinite(r.amount)]
    labels = [r.label for r in seen if r.label is not None]
    match column.kind:
        case "count":
            return len(seen)
        case "sum":
            return sum(amounts)
        case "mean":
            return sum(amounts) / len(amounts) if amounts else None
        case "distinct":
            return len({r.place for r in seen if r.place is not None})
        case "since_last":
            latest = max((r.time for r in seen if r.time is not None), default=None)
            return None if latest is None else (row.time - latest) / 1e6
        case "rate":
            return sum(labels) / len(labels) if labels else None


def window(rows: list[Row], at: int, given: Window) -> tuple[list[float], bool]:
    """The amounts of the window of row `at` (NaN where there is none), and whether it is short."""
    row = rows[at]
    if not row.usable:
        return [math.nan] * given.length, True
    assert row.time is not None
    mine = [
        (other.time, place)
        for place, other in enumerate(rows)
        if other.usable
        and other.time is not None
        and other.entity == row.entity
        and row.time - given.reach <= other.time
        and (other.time, place) <= (row.time, at)
    ]
    last = [rows[place] for _, place in sorted(mine)[-given.length :]]
    values = [
        r.amount if r.amount is not None and math.isfinite(r.amount) else math.nan for r in last
    ]
    missing = given.length - len(values)
    return [math.nan] * missing + values, missing > 0
