"""The filter language: what it keeps, and what it refuses."""

import contextlib
import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    "text", ["proto > 3", "label == 'x'", "ts in (True,)", "ts > 'yesterday'", "proto", "label"]
)
def test_a_comparison_of_other_types_is_refused_before_anything_is_read(text: str) -> None:
    row_filter = parse_filter(text, BATCH.schema.names)
    with pytest.raises(Refusal, match=r"does not fit its columns \(.* is .*\): "):
        row_filter.check(BATCH.schema)


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
@given(st.text(alphabet="label x()[]'\"=<>!andornotin,.0123456789-+*:{}", max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(Refusal):
        parse_filter(text, BATCH.schema.names).check(BATCH.schema)
