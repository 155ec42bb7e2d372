"""A night names every day, and every folder of none, that it does not score."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lake.days import day_order
from cluster.lake.input.partitions import Days, StrayFolder
from jobs.due import Skipped, choose_due, describe

TODAY = date(2026, 11, 27)


def days_of(*names: str, **hours: frozenset[int]) -> Days:
    ordered = sorted(names, key=day_order)
    return Days({name: (name,) for name in ordered}, hours)


def choose(
    days: Days, learned: tuple[str, ...] = (), first_day: str | None = None
) -> tuple[list[str], dict[str, bool]]:
    due, skipped = choose_due(days, learned, first_day, TODAY)
    return due, {one.day: one.waiting for one in skipped}


def test_a_late_older_day_is_due_unless_the_spec_says_from_when() -> None:
    days = days_of("2026-10-01", "2026-11-20", "2026-11-21", "2026-11-22")
    learned = ("2026-11-20", "2026-11-21")
    assert choose(days, learned) == (
        ["2026-10-01", "2026-11-22"],
        {"2026-11-20": False, "2026-11-21": False},
    )
    due, skipped = choose(days, learned, "2026-11-21")
    assert (due, list(skipped)) == (["2026-11-21", "2026-11-22"], ["2026-10-01", "2026-11-20"])
    assert choose(days, learned, "20261121") == (due, skipped)


def test_integers_are_due_in_their_order() -> None:
    assert choose(days_of("8", "9", "10", "11", "12"), ("8", "9"))[0] == ["10", "11", "12"]
    assert choose(days_of("8", "9", "10"), (), "9")[0] == ["9", "10"]


def test_the_one_day_all_is_due_although_it_was_learned_from() -> None:
    assert choose(days_of("all"), ("all",)) == (["all"], {})


def test_today_is_not_complete_and_a_day_far_ahead_waits() -> None:
    due, skipped = choose(days_of("2026-11-26", "2026-11-27", "2026-11-28", "2062-11-20"))
    assert due == ["2026-11-26"]
    assert skipped == {"2026-11-27": False, "2026-11-28": False, "2062-11-20": True}


def test_a_day_without_its_last_hour_waits_once_a_later_day_has_it() -> None:
    hours = {
        "2026-11-20": frozenset(range(24)),
        "2026-11-21": frozenset(range(20)),
        "2026-11-22": frozenset({0, 23}),
        "2026-11-23": frozenset({0}),
    }
    due, skipped = choose(days_of(*hours, **hours))
    assert due == ["2026-11-20", "2026-11-22"]
    assert skipped == {"2026-11-21": True, "2026-11-23": False}


@pytest.mark.parametrize(("is_day", "waiting"), [(True, True), (False, False)])
def test_a_folder_of_no_day_is_named_and_a_misspelled_day_waits(
    is_day: bool, waiting: bool
) -> None:
    stray = StrayFolder("Day=2026-11-21", "expected the key 'day'", 3, is_day)
    _, (skipped,) = choose_due(Days({}, {}, (stray,)), (), None, TODAY)
    assert skipped == Skipped("Day=2026-11-21", "3 files: expected the key 'day'", waiting)


def test_days_left_out_for_one_reason_are_one_line() -> None:
    days = days_of(*(f"2026-11-{day:02}" for day in range(1, 9)))
    _, skipped = choose_due(days, days.names, None, TODAY)
    (line,) = describe(skipped)
    assert line.startswith("2026-11-01 .. 2026-11-08 (8 days): the first champion learned")


@given(
    st.sets(st.dates(TODAY - timedelta(days=40), TODAY + timedelta(days=3))),
    st.sets(st.dates(TODAY - timedelta(days=40), TODAY)),
    st.none() | st.dates(TODAY - timedelta(days=40), TODAY).map(str),
)
def test_every_day_is_due_or_named_and_never_both(
    there: set[date], learned: set[date], first_day: str | None
) -> None:
    days = days_of(*map(str, there))
    due, skipped = choose_due(days, set(map(str, learned)), first_day, TODAY)
    assert sorted([*due, *(one.day for one in skipped)], key=day_order) == list(days.names)
    assert all(one.reason for one in skipped)
