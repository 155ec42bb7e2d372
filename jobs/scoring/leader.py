"""The feature that leads the flags of a run, for a gate that refuses it."""

import calendar
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.output.schemas import FLAGS
from cluster.lake.output.shard import read_shard
from jobs.scoring.books import RunBooks
from jobs.scoring.run import Run

# Flags that are read: enough to name what leads a whole night.
_MOST = 1_000_000


def name_leader(run: Run, books: RunBooks) -> str:
    """The feature that leads most flags, as a part of a gate's message; empty without one."""
    store = run.output.child(FLAGS)
    tables = (read_shard(store, shard)["reasons"] for shard in books.shards(FLAGS))
    return describe_leader(tables, run.bundle.metadata["training"]["days"])


def describe_leader(reasons: Iterable[pa.ChunkedArray], trained: Sequence[str]) -> str:
    """The feature that is the first reason of most flags, and of how many.

    `reasons` are columns of flags, `trained` the days of training. If it is a weekday, the message
    says how many such days there were.

    >>> reason = {"feature": "weekday of ts", "observed": "Friday"}
    >>> describe_leader([pa.chunked_array([[[reason]]])], ["2026-11-27"])
    '; weekday of ts leads 1 of 1 flags; training saw 1 Friday'
    """
    leaders: Counter[tuple[str, str]] = Counter()
    read = 0
    for column in reasons:
        if read >= _MOST:
            break
        read += len(column)
        told = pc.list_slice(column.filter(pc.greater(pc.list_value_length(column), 0)), 0, 1)
        first = pc.list_flatten(told)
        pairs = pa.table({part: pc.struct_field(first, part) for part in ("feature", "observed")})
        counts = pairs.group_by(["feature", "observed"]).aggregate([([], "count_all")])
        for one in counts.to_pylist():
            leaders[one["feature"], one["observed"]] += one["count_all"]
    if not leaders:
        return ""
    by_feature: Counter[str] = Counter()
    for (feature, _), count in leaders.items():
        by_feature[feature] += count
    (name, count), *_ = by_feature.most_common(1)
    values = Counter({value: n for (feature, value), n in leaders.items() if feature == name})
    days = _count_weekday(values.most_common(1)[0][0], trained) if "weekday of" in name else ""
    return f"; {name} leads {count:,} of {read:,} flags{days}"


def _count_weekday(weekday: str, trained: Sequence[str]) -> str:
    """How many of the days of training were this day of the week; empty where days are no dates."""
    try:
        names = [calendar.day_name[date.fromisoformat(day).weekday()] for day in trained]
    except ValueError:
        return ""
    if weekday not in calendar.day_name:
        return ""
    count = names.count(weekday)
    return f"; training saw {count or 'no'} {weekday}{'s' if count > 1 else ''}"
