"""Folders name days, or are set aside with a reason: for every layout and every name."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lake.days import day_order, read_date
from cluster.lake.input.layout import (
    Above,
    Layout,
    Named,
    Stray,
    list_columns,
    parse_layout,
    propose,
    read_value,
)

DATES = st.dates(date(1000, 1, 1), date(9999, 12, 31))
LAYOUTS: dict[str, str | tuple[str, ...]] = {
    "day={d:%Y-%m-%d}": "day",
    "day={d:%Y%m%d}": "day",
    "day={d:%Y-%m-%d} 00%3A00%3A00": "day",
    "year={d.year}/month={d.month}/day={d.day}": ("year", "month", "day"),
    "yr={d.year}/mo={d:%m}/dy={d:%d}": ("yr", "mo", "dy"),
    "{d:%Y/%m/%d}": "%Y/%m/%d",
    "{d:%Y}/{d:%j}": "%Y/%j",
    "{d:%Y-%m-%d}": "%F",
    "logs-{d:%Y.%m.%d}": "logs-%Y.%m.%d",
    "dt={d:%Y%m%d}": "dt=%Y%m%d",
}
FOLDERS = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=9)
OTHERS = st.lists(st.sampled_from(["region=eu", "AWSLogs", "123456789012", "host"]), max_size=3)


def name_day(layout: Layout, folders: list[str]) -> Named | Above | Stray:
    found = layout.place(folders)
    if not isinstance(found, Named):
        return found
    return read_value(found, layout.settle([found.value]))


@pytest.mark.parametrize("form", LAYOUTS)
@given(day=DATES, above=OTHERS, below=OTHERS)
def test_every_date_has_one_name_in_every_layout(
    form: str, day: date, above: list[str], below: list[str]
) -> None:
    layout = parse_layout(LAYOUTS[form])
    path = form.format(d=day).split("/")
    wanted = Named(day.isoformat())
    assert name_day(layout, [*above, *path, *below]) == wanted
    for stop in range(len(above) + len(path)):
        found = layout.place([*above, *path][:stop])
        assert isinstance(found, Above)
        assert found.may_hold(day)


@pytest.mark.parametrize("form", LAYOUTS)
@given(folders=st.lists(FOLDERS, max_size=4))
def test_no_name_is_an_error(form: str, folders: list[str]) -> None:
    found = name_day(parse_layout(LAYOUTS[form]), folders)
    if isinstance(found, Named):
        assert read_date(found.value) or not read_date(form.format(d=date(2026, 1, 1)))


@given(st.lists(DATES, min_size=1), st.lists(st.integers(0, 10**9), min_size=1))
def test_days_have_the_order_of_their_values(dates: list[date], numbers: list[int]) -> None:
    days = sorted(map(str, dates), key=day_order)
    assert days == [str(day) for day in sorted(dates)]
    assert sorted(map(str, numbers), key=day_order) == [str(n) for n in sorted(numbers)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2026-11-20", "8", "soon"], "date"),
        (["8", "9", "soon"], "integer"),
        (["train", "test"], "text"),
        ([], "text"),
    ],
)
def test_one_odd_value_does_not_change_the_kind_of_the_others(values: list[str], kind: str) -> None:
    assert parse_layout("day").settle(values) == kind
    assert parse_layout("day", "text").settle(values) == "text"


@pytest.mark.parametrize(
    ("partition", "path", "reason"),
    [
        ("day", "day=__HIVE_DEFAULT_PARTITION__", "key is null"),
        ("day", "day=", "an empty value"),
        ("day", "day=..%2fx", "a part '.' or '..'"),
        ("day", "Day=2026-11-20", "expected the key 'day', found 'Day'"),
        (("year", "month", "day"), "year=2026/month=13/day=1", "no date of the calendar"),
        (("year", "month", "day"), "year=2026/month=x/day=1", "expected month=%m"),
        ("%Y/%m/%d", "2026/11/31", "no date of the calendar"),
        (("day", "hour"), "day=2026-11-20/hour=24", "no hour"),
    ],
)
def test_what_names_no_day_is_set_aside_with_the_reason(
    partition: str | tuple[str, ...], path: str, reason: str
) -> None:
    found = parse_layout(partition).place(path.split("/"))
    assert isinstance(found, Stray)
    assert reason in found.reason


def test_hours_are_read_from_a_key_a_pattern_and_a_value() -> None:
    for partition, path in (
        (("day", "hour"), "day=2026-11-20/hour=05"),
        (("year", "month", "day", "hour"), "year=2026/month=11/day=20/hour=5"),
        ("%Y/%m/%d/%H", "2026/11/20/05"),
        ("dt", "dt=2026-11-20-05"),
        ("dt", "dt=2026-11-20 05%3A00%3A00"),
    ):
        assert name_day(parse_layout(partition), path.split("/")) == Named("2026-11-20", 5)


@pytest.mark.parametrize(
    "partition",
    ["", "a/b", "%Y/%m", "%Y%Y/%m/%d", "%Q", "day=", "_day", (), ("region", "zone", "hour"), "%H"],
)
def test_a_partition_that_names_no_day_is_refused(partition: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"key|pattern|folder|found %Q|%Y"):
        parse_layout(partition)


def test_other_keys_are_columns() -> None:
    key = "region=eu/day=2026-11-20/host=a%20b/zone=__HIVE_DEFAULT_PARTITION__/x=1.parquet"
    expected = {"region": "eu", "host": "a b", "zone": None}
    assert list_columns(key, parse_layout("day")) == expected


@pytest.mark.parametrize(
    ("path", "partition"),
    [
        ("year=2026/month=11/day=20/hour=05", ["year", "month", "day"]),
        ("year=2026/month=11/day=20/hour=23", ["year", "month", "day", "hour"]),
        ("region=eu/day=2026-11-20", "day"),
        ("dt=20261120/hour=23", ["dt", "hour"]),
        ("AWSLogs/1/2026/11/20/05", "%Y/%m/%d"),
        ("day=8", "day"),
        ("split=train", None),
        ("a/b", None),
    ],
)
def test_the_layout_is_seen_in_the_folders(path: str, partition: str | list[str] | None) -> None:
    assert propose([path.split("/")]) == partition


def test_one_stray_folder_does_not_name_the_days() -> None:
    days = [[f"day={n}"] for n in (8, 9, 10)]
    assert propose([["Day=2026-11-18"], *days]) == "day"
    assert propose([["2026", "11", "20"], *days]) == "day"
    by_parts = [["year=2026", "month=11", f"day={day}"] for day in (8, 9)]
    for few in (by_parts, by_parts[:1]):
        assert propose([["Day=2026-11-18"], *few]) == ["year", "month", "day"]
    assert propose([["day=2026-11-20"], ["day=2026-11-20", "hour=23"]]) == ["day", "hour"]
