"""Times of every type that logs have."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decoding.times import MICROSECONDS, decode_times

moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))
zones = st.sampled_from(["", "Z", "+00:00", "+02:00", "-05:30"])
MOMENT = datetime(2026, 1, 31, 12, 30, 15, 250_000)
SECONDS = int(MOMENT.replace(tzinfo=UTC, microsecond=0).timestamp())


@given(st.lists(st.tuples(moments, zones) | st.none(), max_size=5))
def test_text_in_iso_8601_is_its_moment(rows: list[tuple[datetime, str] | None]) -> None:
    texts = [None if row is None else row[0].isoformat() + row[1] for row in rows]
    times = decode_times(pa.array(texts, pa.string()))
    assert times.broken is None
    wanted = [None if row is None else row[0] - _offset(row[1]) for row in rows]
    assert times.instants.to_pylist() == wanted


def _offset(zone: str) -> timedelta:
    if zone in ("", "Z"):
        return timedelta(0)
    sign = -1 if zone[0] == "-" else 1
    return sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))


@given(moments, st.sampled_from(sorted(MICROSECONDS)))
def test_a_number_since_1970_is_its_moment_in_the_declared_unit(
    moment: datetime, unit: str
) -> None:
    moment = moment.replace(microsecond=0)
    seconds = round((moment - datetime(1970, 1, 1)).total_seconds())
    number = seconds * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    if abs(number) < 2**63:
        times = decode_times(pa.array([number, None]), unit)
        assert (times.instants.to_pylist(), times.broken) == ([moment, None], None)


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        (pa.array([SECONDS + 0.25]), "s"),
        (pa.array([Decimal(f"{SECONDS}.25")]), "s"),
        (pa.array([SECONDS * 1_000 + 250], pa.uint64()), "ms"),
        (pa.array([MOMENT], pa.timestamp("ms")), None),
        (pa.array([MOMENT], pa.timestamp("ns", "UTC")), None),
        (pa.array([MOMENT], pa.timestamp("us", "Mars/Olympus")), None),
        (pa.array(["2026-01-31T12:30:15.250000999Z"]).dictionary_encode(), None),
        (pa.array(["2026-01-31 12:30:15.25"], pa.large_string()), None),
    ],
)
def test_a_moment_is_the_same_in_every_type(column: pa.Array, unit: str | None) -> None:
    assert decode_times(column, unit).instants.to_pylist() == [MOMENT]


def test_what_is_no_time_is_named_and_the_rest_is_read() -> None:
    texts = decode_times(pa.array(["2026-01-31", "noon", None, "2026-01-31T00:00:00+01:00", ""]))
    assert texts.broken is not None
    assert texts.broken.tolist() == [False, True, False, False, True]
    day = datetime(2026, 1, 31)
    assert texts.instants.to_pylist() == [day, None, None, day - timedelta(hours=1), None]
    numbers = decode_times(pa.array([0.0, float("nan"), 1e300, None]), "s")
    assert numbers.broken is not None
    assert numbers.broken.tolist() == [False, True, True, False]
    assert numbers.rule == "out_of_range"
    for kind, far in (("s", 2**40), ("ms", -(2**53)), ("us", 2**62)):
        stamps = decode_times(pa.array([far, 0, None]).cast(pa.timestamp(kind, "UTC")))
        assert stamps.broken is not None
        assert (stamps.broken.tolist(), stamps.rule) == ([True, False, False], "out_of_range")
    dates = decode_times(pa.array([2**31 - 1, 0], pa.int32()).cast(pa.date32()))
    assert dates.broken is not None
    assert (dates.broken.tolist(), dates.rule) == ([True, False], "out_of_range")
    raw = pa.StringArray.from_buffers(2, *pa.array([b"2026-01-31", b"\xff"]).buffers()[1:])
    unreadable = decode_times(raw)
    assert unreadable.broken is not None
    assert (unreadable.broken.tolist(), unreadable.rule) == ([False, True], "invalid_utf8")
