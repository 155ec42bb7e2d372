"""A gate that refuses a night names the feature that leads its flags."""

import pyarrow as pa
import pytest

from jobs.scoring.leader import describe_leader
from models.explaining.reasons import REASONS

WEEK = ["2026-11-23", "2026-11-24", "2026-11-27"]  # Monday, Tuesday, Friday


def flags(*leaders: tuple[str, str] | None) -> pa.ChunkedArray:
    """The reasons of flags with these first features and values; None for a flag without any."""
    second = {"feature": "bytes", "observed": "9", "expected": "1", "contribution": 0.1}
    rows = [
        [{"feature": one[0], "observed": one[1], "expected": "x", "contribution": 1.0}, second]
        if one
        else []
        for one in leaders
    ]
    return pa.chunked_array([pa.array(rows, REASONS)])


@pytest.mark.parametrize(
    ("weekday", "known"), [("Friday", "1 Friday"), ("Sunday", "no Sunday"), ("any day", None)]
)
def test_a_weekday_comes_with_those_that_training_saw(weekday: str, known: str | None) -> None:
    leading = [("weekday of ts", weekday)] * 3
    column = flags(*leading, ("proto", "udp"), None)
    ending = f"; training saw {known}" if known else ""
    assert describe_leader([column], WEEK) == f"; weekday of ts leads 3 of 5 flags{ending}"
    assert describe_leader([column], ["train"]) == "; weekday of ts leads 3 of 5 flags"


def test_the_leader_is_counted_over_all_values_and_shards() -> None:
    shards = [flags(("proto", "udp"), ("port", "1")), flags(("port", "2"), ("port", "3"), None)]
    assert describe_leader(shards, WEEK) == "; port leads 3 of 5 flags"


@pytest.mark.parametrize("column", [flags(), flags(None), flags(None, None)])
def test_flags_without_reasons_have_no_leader(column: pa.ChunkedArray) -> None:
    assert describe_leader([column], WEEK) == ""
    assert describe_leader([], WEEK) == ""
