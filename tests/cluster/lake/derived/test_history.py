"""Histories and windows agree with a slow oracle: ties, nulls, borders of days, late rows."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.lake.derived.history import (
    DAY,
    History,
    HistoryTable,
    list_columns,
    parse_span,
    to_microseconds,
)
from cluster.lake.derived.windows import Window, Windows
from models.refusal import Refusal
from tests.cluster.lake.derived import history_oracle as oracle
from tests.cluster.lake.derived.history_oracle import Row

HISTORIES = (
    History("entity", ("12h", "1d"), of="amount", distinct="place"),
    History("entity", ("1d",), delay="1d", labels=True),
)
WINDOW = Window("entity", 3, ("amount",), "1d")
DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
START = 1_767_225_600 * 1_000_000  # 2026-01-01 in UTC

# Few times, many of them at the borders of days and horizons, so that ties are the rule.
TIMES = st.one_of(
    st.none(),
    st.builds(
        lambda half, offset: START + half * DAY // 2 + offset,
        st.integers(0, 5),
        st.sampled_from([-1, 0, 1, 1000]),
    ),
)
AMOUNTS = st.one_of(
    st.none(), st.sampled_from([math.nan, math.inf]), st.integers(-8, 8).map(lambda n: n / 4)
)
ROWS = st.builds(
    Row,
    TIMES,
    st.sampled_from([None, "a", "b"]),
    AMOUNTS,
    st.sampled_from([None, 1, 2]),
    st.sampled_from([None, 0, 1]),
    st.booleans() | st.just(True),
)
INPUT = st.lists(st.lists(ROWS, max_size=9), min_size=3, max_size=3)


def batches(rows: list[Row], size: int = 4) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        times = pa.array([r.time for r in part], pa.int64()).cast(pa.timestamp("us"))
        yield (
            pa.record_batch(
                {
                    "time": times,
                    "entity": pa.array([r.entity for r in part], pa.string()),
                    "amount": pa.array([r.amount for r in part], pa.float64(), from_pandas=False),
                    "place": pa.array([r.place for r in part], pa.int32()),
                    "label": pa.array([r.label for r in part], pa.int8()),
                }
            ),
            pa.array([r.counts for r in part]),
        )


def same(found: Any, expected: Any) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-12)


@pytest.mark.thorough
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(INPUT)
def test_every_column_agrees_with_the_oracle(days: list[list[Row]]) -> None:
    seen: list[Row] = []
    with HistoryTable(HISTORIES, "time", "label") as table:
        for day, rows in zip(DAYS, days, strict=True):
            table.add(day, batches(rows))
            first, seen = len(seen), seen + rows
            if not rows:
                continue
            found = pa.Table.from_batches(list(table.derive(day, DAYS[: DAYS.index(day) + 1])))
            assert found.num_rows == len(rows)
            for column in list_columns(HISTORIES):
                for at, value in enumerate(found.column(column.name).to_pylist(), first):
                    assert same(value, oracle.history(seen, at, column)), (column, seen, at)


@given(INPUT)
def test_every_window_agrees_with_the_oracle(days: list[list[Row]]) -> None:
    past, today = days[0] + days[1], days[2]
    made = Windows(WINDOW, "time", batches(past), batches(today))
    half = len(today) // 2
    found = pa.concat_tables([made.build(0, half), made.build(half, len(today))])
    for at, (steps, short) in enumerate(
        zip(*(column.to_pylist() for column in found.columns), strict=True)
    ):
        expected, is_short = oracle.window(past + today, len(past) + at, WINDOW)
        assert len(steps) == WINDOW.length
        for (value,), wanted in zip(steps, expected, strict=True):
            assert value == wanted or (math.isnan(value) and math.isnan(wanted))
        assert short == is_short


@settings(max_examples=20, deadline=None)
@given(INPUT)
def test_a_window_without_an_entity_is_that_of_rows_of_one(days: list[list[Row]]) -> None:
    past, today = ([replace(r, entity="a") for r in rows] for rows in (days[0], days[1]))
    one = Windows(WINDOW, "time", batches(past), batches(today)).build(0, len(today))
    none = replace(WINDOW, entity=None)
    unnamed = ((batch.drop_columns("entity"), mask) for batch, mask in batches(today))
    found = Windows(none, "time", batches(past), unnamed).build(0, len(today))
    assert str(found.to_pylist()) == str(one.to_pylist())  # NaN is no equal


def test_one_enormous_amount_leaves_no_trace_once_it_is_past_the_horizon() -> None:
    rows = [
        Row(START, "a", 1e20),
        Row(START + DAY // 4, "a", 1.0),
        Row(START + DAY // 2 + DAY // 8, "a", 2.0),
    ]
    with HistoryTable((History("entity", ("12h",), of="amount"),), "time", None) as table:
        table.add(DAYS[0], batches(rows))
        found = pa.Table.from_batches(list(table.derive(DAYS[0], DAYS[:1])))
    assert found.column("entity_amount_sum_12h").to_pylist() == [0.0, 1e20, 1.0]


def test_a_day_without_labels_adds_none() -> None:
    histories = (History("entity", ("1d",), delay="12h", labels=True),)
    rows = [Row(START, "a", label=1), Row(START + 1, "a", label=0)]
    later = [Row(START + DAY, "a"), Row(START + DAY + DAY // 2, "a")]
    with HistoryTable(histories, "time", "label") as table:
        table.add(DAYS[0], batches(rows))
        unlabelled = ((batch.drop_columns("label"), mask) for batch, mask in batches(later))
        table.add(DAYS[1], unlabelled)
        found = pa.Table.from_batches(list(table.derive(DAYS[1], DAYS[:2])))
    assert found.to_pydict() == {
        "entity_count_1d_after_12h": [2, 3],
        "entity_anomaly_rate_1d_after_12h": [0.5, 0.5],
    }


def test_a_history_counts_labels_by_the_values_that_are_normal() -> None:
    histories = (History("entity", ("1d",), delay="12h", labels=True),)
    rows = [Row(START, "a"), Row(START + 1, "a"), Row(START + 2, "a"), Row(START + DAY, "a")]
    labels = pa.array(["BENIGN", "DDoS", None, "BENIGN"])
    with HistoryTable(histories, "time", "label", ("BENIGN",)) as table:
        named = (
            (b.drop_columns("label").append_column("label", labels), m) for b, m in batches(rows)
        )
        table.add(DAYS[0], named)
        found = pa.Table.from_batches(list(table.derive(DAYS[0], DAYS[:1])))
    assert found.column("entity_anomaly_rate_1d_after_12h").to_pylist() == [None, None, None, 0.5]


def test_equal_names_are_equal_columns() -> None:
    again = History("entity", ("12h",), of="price")
    names = [column.name for column in list_columns((*HISTORIES, again))]
    assert len(set(names)) == len(names)
    assert names.count("entity_count_12h") == 1  # both entries have it, and it is the same


@pytest.mark.parametrize("text", ["", "0d", "1", "1w", "-1d", "1.5h", "100000d"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="30m, 12h or 7d"):
        parse_span(text)


def test_times_are_microseconds_in_utc_whatever_their_unit_and_zone() -> None:
    for kind in (pa.timestamp("s"), pa.timestamp("ns", tz="Europe/Zurich"), pa.date32()):
        whole = pa.array([START // 1_000_000], pa.int64()).cast(pa.timestamp("s", tz="UTC"))
        assert to_microseconds(whole.cast(kind)).to_pylist() == [START]
    with pytest.raises(Refusal, match="expected a time"):
        to_microseconds(pa.array(["2026-01-01"]))
