"""Days as a person writes them."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lake.days import DayRange, name_day
from cluster.lake.input.partitions import Source, find_day
from models.refusal import Refusal

FORMS = (
    "{:%Y-%m-%d}",
    "{:%Y%m%d}",
    "{:%Y/%m/%d}",
    "{:%Y_%m_%d}",
    "{:%Y.%m.%d}",
    "{0.year}-{0.month}-{0.day}",
    "{:%Y-%m-%dT00:00:00Z}",
    "{:%Y-%m-%d 00:00:00+00:00}",
    " {:%Y-%m-%d}\n",
    "'{:%Y%m%d}'",
    '"{:%Y-%m-%d}"',
    "dt={:%Y%m%d}",
    "'day={:%Y-%m-%d}'",
)
DATES = st.dates(date(1970, 1, 1), date(2199, 12, 31))


@given(DATES, st.sampled_from(FORMS), st.sampled_from(("{}", "{:%Y%m%d}")))
def test_a_date_has_one_name_however_a_person_writes_it(day: date, form: str, name: str) -> None:
    days = [name.format(day + timedelta(days=number)) for number in range(3)]
    assert name_day(form.format(day), days) == days[0]


@given(DATES, st.sampled_from(FORMS), st.sampled_from(FORMS), st.integers(0, 4), st.integers(0, 4))
def test_a_range_has_the_same_days_however_its_ends_are_written(
    day: date, one: str, other: str, first: int, last: int
) -> None:
    first, last = sorted((first, last))
    there = [day + timedelta(days=number) for number in range(5)]
    text = f"{one.format(there[first])}..{other.format(there[last])}"
    for name in ("{}", "{:%Y%m%d}"):
        days = tuple(map(name.format, there))
        assert DayRange.parse(text).choose(days) == days[first : last + 1]


@pytest.mark.parametrize(
    ("text", "days", "named"),
    [
        ("08", ["7", "8"], "8"),
        ("day=8", ["7", "8"], "8"),
        ("08", ["08", "8a"], "08"),
        ("8", ["08", "8a"], "8"),  # texts are no numbers
        ("'a b'", ["a b", "c"], "a b"),
        (" x", [" x", "x"], " x"),
        ("split=train", ["test", "train"], "train"),
        (" all ", ["all"], "all"),
        ("20261135", ["20261134", "20261135"], "20261135"),
    ],
)
def test_integers_and_texts_are_named_as_their_folders_are(
    text: str, days: list[str], named: str
) -> None:
    assert name_day(text, days) == named


def test_digits_that_are_no_dates_are_a_range_of_integers() -> None:
    days = ("20261130", "20261134", "20261201")
    assert DayRange.parse("20261131..20261201").choose(days) == days[1:]


def test_a_range_without_a_day_names_the_nearest_days() -> None:
    days = [f"2026-11-{day:02}" for day in range(1, 21)]
    with pytest.raises(Refusal) as raised:
        DayRange.parse("20261030..20261031").require(days, "lake")
    assert str(raised.value) == (
        "lake has no day from 20261030 to 20261031: it has 20 days, the nearest are "
        "2026-11-01, 2026-11-02, 2026-11-03"
    )


def test_an_hour_is_not_a_day() -> None:
    with pytest.raises(Refusal, match=r"'2026-11-08T05' names an hour, .*: expected 2026-11-08"):
        name_day("2026-11-08T05")
    with pytest.raises(Refusal, match="names an hour"):
        DayRange.parse("2026-11-08..2026-11-09-05")


@pytest.mark.parametrize(
    ("folder", "source", "day"),
    [
        ("dt=20261108", ("dt", None), "2026-11-08"),
        ("dt=20261108", ("dt", "integer"), "20261108"),
        ("dt=2026-11-08", ("dt", "text"), "2026-11-08"),
        ("20261108", ("%Y%m%d", None), "2026-11-08"),
        ("y=2026/m=11/d=8", (("y", "m", "d"), None), "2026-11-08"),
    ],
)
def test_a_day_is_found_by_the_name_of_its_folder_and_by_its_date(
    tmp_path: Path, folder: str, source: tuple[str, None], day: str
) -> None:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "a.parquet").write_bytes(b"PAR1")
    input_ = Source(str(tmp_path), *source)
    assert {find_day(input_, text) for text in ("2026-11-08", "20261108", "'2026/11/8'")} == {day}
