"""The filter language: what it keeps, and what it refuses."""

import contextlib
import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input.filter_syntax import mark_times
from cluster.lake.input.filters import parse_filter
from models.refusal import Refusal

NAN = float("nan")
BATCH = pa.record_batch(
    {
        "label": pa.array([0, 1, None, 0, 2], pa.int64()),
        "proto": pa.array(["tcp", "udp", "tcp", None, "icmp"]).dictionary_encode(),
        "x": pa.array([0.5, -1.5, NAN, 3.0, None]),
        "fraud": pa.array([False, True, False, None, True]),
        "id.orig_h": pa.array(["10.0.0.1", "10.0.0.2", "::1", None, "a"]),
        "Flow Duration": pa.array([1, 2, 3, 4, 5]),
        "ts": pa.array([datetime.datetime(2026, 1, 1)] * 5, pa.timestamp("us", "UTC")),
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("label == 0", [0, 3]),
        ("label != 0", [1, 4]),
        ("0 < label <= 2", [1, 4]),
        ("0 == label", [0, 3]),
        ("label in (0, 2)", [0, 3, 4]),
        ("label not in [0, 2]", [1, 2]),
        ("label is None", [2]),
        ("label is not None and x > 0", [0, 3]),
        ("x < -1 or proto == 'icmp'", [1, 4]),
        ("not (x < 1)", [2, 3]),
        ("proto in {'tcp', 'udp'}", [0, 1, 2]),
        ('proto == "tcp"', [0, 2]),
        ("fraud", [1, 4]),
        ("not fraud", [0, 2]),
        ("fraud == True", [1, 4]),
        ("id.orig_h == '::1'", [2]),
        ("column('Flow Duration') >= 4", [3, 4]),
        ("column('Flow Duration') > label", [0, 1, 3, 4]),
        (" label == 0 and (x > 1 or fraud) ", [3]),
    ],
)
def test_a_filter_keeps_the_rows_for_which_it_is_true(text: str, rows: list[int]) -> None:
    row_filter = parse_filter(text, BATCH.schema.names)
    row_filter.check(BATCH.schema)
    assert np.flatnonzero(row_filter.mask(BATCH)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lable == 0", "there is no column 'lable'; did you mean 'label'?"),
        ("zzzzzz == 0", "there is no column 'zzzzzz'. The input has 7 columns: label, proto"),
        ("label ==", "cannot be read: invalid syntax"),
        ("label = 0", "cannot be read: "),
        ("label == None", "None was compared; expected `is None` or `is not None`"),
        ("label is 0", "`is` was used with a value; expected `is None`"),
        ("label in 3", "found '3' after `in`; expected values in brackets"),
        ("label in ()", "found '()' after `in`"),
        ("label in (0, 'a')", "values of several kinds after `in`; expected values of one kind"),
        ("label + 1 == 2", "found 'label + 1'"),
        ("__import__('os').system('true')", "where a column should be"),
        ("open('x')", "found \"open('x')\" where a column should be"),
        ("(lambda: 1)() == 1", "where a column should be"),
        ("label == [x for x in y]", "found '[x for x in y]'"),
        ("label == 1j", "found '1j'"),
        ("label == b'x'", "found \"b'x'\""),
        ("True", "it names no column; expected a comparison such as label == 0"),
        ("", "cannot be read"),
        ("(" * 80 + "label" + ")" * 80 + " == 0 and " + "not " * 60 + "fraud", "nested too deeply"),
        ("not " * 5_000 + "fraud", ""),
        ("label == 0\x00", "cannot be read"),
        ("not " * 100_000 + "fraud", "expected at most 65,536 characters, found 400,005"),
        ("not " * 16_000 + "fraud", "cannot be read"),
        ("label == 10**30", "found '10 ** 30'"),
        (f"label == {10**30}", "expected numbers of 64 bits, found a larger one"),
        (f"label in (1, {2**64})", "expected numbers of 64 bits, found a larger one"),
        ("label == " + "9" * 5_000, "cannot be read"),
        (r"proto == '\ud800'", "expected text, found half of a character"),
        ("a." * 60 + "b == 1", "nested too deeply"),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_filter(text, BATCH.schema.names)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "text", ["proto > 3", "label == 'x'", "ts in (True,)", "proto", "label", "ts > 1.5"]
)
def test_a_comparison_of_other_types_is_refused_before_anything_is_read(text: str) -> None:
    row_filter = parse_filter(text, BATCH.schema.names)
    with pytest.raises(Refusal, match=r"does not fit its columns \(.* is .*\): "):
        row_filter.check(BATCH.schema)


DAYS = [datetime.datetime(2026, 1, day, 12) for day in (1, 2, 3)]
SECONDS = [int(day.replace(tzinfo=datetime.UTC).timestamp()) for day in DAYS]
TIMES = {
    "with a zone": (pa.array(DAYS, pa.timestamp("us", "UTC")), "ts"),
    "of another zone": (pa.array(DAYS, pa.timestamp("s", "Asia/Tokyo")), "ts"),
    "without a zone": (pa.array(DAYS, pa.timestamp("ns")), "ts"),
    "date": (pa.array([day.date() for day in DAYS], pa.date32()), "ts"),
    "milliseconds of a date": (pa.array([day.date() for day in DAYS], pa.date64()), "ts"),
    "s": (pa.array(SECONDS, pa.int64()), "time(ts, 's')"),
    "floats": (pa.array(SECONDS, pa.float64()), "time(ts, 's')"),
    "decimals": (pa.array(SECONDS, pa.decimal128(20, 0)), "time(ts, 's')"),
    "ms": (pa.array([s * 1000 for s in SECONDS], pa.int64()), "time(ts, 'ms')"),
    "us": (pa.array([s * 10**6 for s in SECONDS], pa.uint64()), "time(ts, 'us')"),
    "ns": (pa.array([s * 10**9 for s in SECONDS], pa.int64()), "time(ts, 'ns')"),
    "text": (pa.array([day.isoformat(" ") for day in DAYS]), "time(ts)"),
    "text with zones": (pa.array([f"{day.isoformat()}+00:00" for day in DAYS]), "time(ts)"),
    "dictionary": (pa.array([f"{d.isoformat()}Z" for d in DAYS]).dictionary_encode(), "time(ts)"),
}


@pytest.mark.parametrize("kind", TIMES)
def test_a_time_of_any_kind_is_compared_with_text_in_iso_8601(kind: str) -> None:
    column, name = TIMES[kind]
    batch = pa.record_batch({"ts": pa.concat_arrays([column, column[:0]])})
    for text, rows in {
        "ts >= '2026-01-02'": [1, 2],
        "ts < '2026-01-02T00:00:00Z'": [0],
        "'2026-01-01 23:00' < ts < '2026-01-03T00:00:00+02:00'": [1],
        "ts <= '2026-01-02T13:00:05Z'": [0, 1],
        "not ts < '9999-12-31'": [],
        "ts in ('2026-01-01T12:00:00Z', '2026-01-03T12:00:00Z')": [0, 2],
        "ts not in ['2026-01-01T12:00:00Z']": [1, 2],
        "ts is not None": [0, 1, 2],
    }.items():
        if "in" in text.split() and "date" in kind:
            continue
        row_filter = parse_filter(text.replace("ts", name), ["ts"])
        row_filter.check(batch.schema)
        assert np.flatnonzero(row_filter.mask(batch)).tolist() == rows, text


def test_a_text_that_is_no_time_is_left_to_the_rule_of_times() -> None:
    batch = pa.record_batch({"ts": ["2026-01-01", "soon", None, "2026-01-03"]})
    row_filter = parse_filter("time(ts) > '2026-01-02'", ["ts"])
    assert row_filter.mask(batch).tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ts > 'yesterday'", "a time is compared with 'yesterday'; expected ISO 8601, such as"),
        ("time(label) > '2026-01-01'", "'label' is a number (int64) taken for a time; expected"),
        ("time(label, 'weeks') > '2026-01-01'", "found the unit 'weeks'; expected s, ms, us or ns"),
        ("time(fraud) > '2026-01-01'", "'fraud' is a number (bool) taken for a time"),
        (
            "time(label, 's') > '2026-01-01T00:00:00.5'",
            "(int64) is compared with '2026-01-01T00:00",
        ),
    ],
)
def test_what_is_no_time_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse_filter(text, BATCH.schema.names).check(BATCH.schema)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("ts < '2026-01-01'", "time(column('ts')) < '2026-01-01'"),
        ("'2026' <= id.at < '2027'", "'2026' <= time(column('id.at'), 'ms') < '2027'"),
        ("column('ts') in ('2026-01-01',)", "time(column('ts')) in ('2026-01-01',)"),
        ("ts < 5 and label == 'x'", "ts < 5 and label == 'x'"),
        ("ts is None or other > '2026'", "ts is None or other > '2026'"),
    ],
)
def test_columns_of_times_are_marked_where_they_are_compared_with_text(
    text: str, marked: str
) -> None:
    assert mark_times(text, {"ts": None, "id.at": "ms"}) == marked


@pytest.mark.parametrize("kind", [pa.decimal128(9, 0), pa.decimal128(38, 2), pa.decimal256(60, 3)])
def test_decimals_are_compared_with_whole_numbers(kind: pa.DataType) -> None:
    batch = pa.record_batch({"id": pa.array([Decimal(1), Decimal(5), None, Decimal(9)], kind)})
    for text, rows in {"id > 4": [1, 3], "id in (5, 7)": [1], "0 < id < 9": [0, 1]}.items():
        row_filter = parse_filter(text, ["id"])
        row_filter.check(batch.schema)
        assert np.flatnonzero(row_filter.mask(batch)).tolist() == rows
    assert not parse_filter(f"id == {2**63}", ["id"]).mask(batch).any()


def test_whole_numbers_of_64_bits_are_compared_exactly() -> None:
    batch = pa.record_batch({"id": pa.array([2**63, 2**63 + 1, 2**64 - 1], pa.uint64())})
    for text in (f"id == {2**63 + 1}", f"id in ({2**63 + 1}, 4)"):
        assert parse_filter(text, ["id"]).mask(batch).tolist() == [False, True, False]


@pytest.mark.thorough
def test_thousands_of_comparisons_are_evaluated() -> None:
    """Arrow recurses: joined one after another, they would overflow its stack."""
    many = " or ".join(f"label=={n}" for n in range(4_000))
    chain = "<=".join(["label"] * 8_000)
    for text in (many, chain):
        parsed = parse_filter(text, BATCH.schema.names)
        parsed.check(BATCH.schema)
        assert parsed.mask(BATCH).any()


def test_rows_keep_their_order_in_a_large_batch() -> None:
    rows = 200_000  # Arrow works in pieces of 32k, on all threads
    batch = pa.record_batch({"n": pa.array(range(rows), pa.int64())})
    keep = parse_filter("n > 100 and n <= 150000", ["n"]).mask(batch)
    assert np.flatnonzero(keep).tolist() == list(range(101, 150_001))


@settings(deadline=None)
@given(st.text(alphabet="label x()[]'\"=<>!andornotimesin,.0123456789-+*:{}", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(Refusal):
        parse_filter(text, BATCH.schema.names).check(BATCH.schema)
