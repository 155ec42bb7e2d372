"""A fit has the same result in any order and any number of parts."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.columns import (
    Boolean,
    Categorical,
    FeatureColumn,
    Image,
    IPAddress,
    Numeric,
    Port,
    Sequence,
    Text,
    Timestamp,
    Vector,
)
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.refusal import Refusal, SchemaMismatch
from tests.models.flows import COLUMNS, batch_of, fit, flows

PARTS: tuple[FeatureColumn, ...] = (
    Numeric("a"),
    Numeric("b", scale="robust", log1p=True),
    Numeric("c", scale="quantile"),
    Categorical("d", max_values=3),
    Port("e", top=2),
    IPAddress("f"),
)
SCHEMA = pa.schema(
    {
        "a": pa.float64(),
        "b": pa.float64(),
        "c": pa.int64(),
        "d": pa.string(),
        "e": pa.int32(),
        "f": pa.string(),
    }
)
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("nan")))
rows = st.fixed_dictionaries(
    {
        "a": numbers,
        "b": numbers,
        "c": st.one_of(st.none(), st.integers(-5, 5)),
        "d": st.sampled_from(["x", "y", "z", "w", None]),
        "e": st.sampled_from([80, 443, 22, 70_000, None]),
        "f": st.sampled_from(["10.0.0.1", "::1", "?", None]),
    }
)


def fit_of(lines: list[dict[str, Any]]) -> EncoderFit:
    statistics = EncoderFit(PARTS, SCHEMA)
    statistics.update(pa.RecordBatch.from_pylist(lines, SCHEMA))
    return statistics


def merged(fits: list[EncoderFit], choice: st.DataObject) -> EncoderFit:
    """Merge fits in any order and grouping, some of them through bytes."""
    while len(fits) > 1:
        left = fits.pop(choice.draw(st.integers(0, len(fits) - 1)))
        right = fits.pop(choice.draw(st.integers(0, len(fits) - 1)))
        if choice.draw(st.booleans()):
            right = EncoderFit.from_bytes(right.to_bytes())
        left.merge(right)
        fits.append(left)
    return fits[0]


def assert_close(left: Encoder, right: Encoder) -> None:
    assert left.layout == right.layout
    assert left.vocabularies == right.vocabularies
    for (name, one), (_, other) in zip(
        left.state_dict().items(), right.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5, msg=name)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=40), st.data())
def test_any_parts_and_any_merges_give_the_same_encoder(
    lines: list[dict[str, Any]], data: st.DataObject
) -> None:
    whole = fit_of(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lines)), max_size=4)))
    edges = [0, *cuts, len(lines)]
    pieces = [lines[a:b] for a, b in pairwise(edges)]
    parts = merged([fit_of(piece) for piece in pieces], data)
    assert (parts.rows, parts.rows_left_out) == (whole.rows, whole.rows_left_out)
    assert whole.rows + whole.rows_left_out == len(lines)
    if not whole.rows:
        return
    try:
        encoder = whole.finish()
    except SchemaMismatch:  # a column without values
        with pytest.raises(SchemaMismatch):
            parts.finish()
    else:
        assert_close(parts.finish(), encoder)


def test_the_statistics_of_a_stream_equal_those_of_all_rows() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(5, 3, 20_000)
    statistics = EncoderFit(
        (Numeric("x", clip=None), Numeric("y", scale="robust")),
        pa.schema({"x": pa.float64(), "y": pa.float64()}),
    )
    for part in np.array_split(values, 13):
        statistics.update(pa.record_batch({"x": part, "y": part}))
    scaling = statistics.finish().scaling
    assert statistics.rows == 20_000
    assert float(scaling.centre[0]) == pytest.approx(values.mean(), rel=1e-6)
    assert float(scaling.width[0]) == pytest.approx(values.std(), rel=1e-6)
    assert float(scaling.centre[1]) == pytest.approx(np.median(values), abs=0.05)
    assert float(scaling.width[1]) == pytest.approx(3, rel=0.03)


def test_rows_with_a_problem_in_any_column_are_left_out_and_counted() -> None:
    table = pa.table(
        {"x": [1.0, 3.0, 1e9, float("nan")], "p": [80, 443, -1, 22], "t": ["a", "b", "c", "d"]}
    )
    statistics = EncoderFit((Numeric("x"), Port("p"), Categorical("t")), table.schema)
    statistics.update(batch_of(table))
    assert (statistics.rows, statistics.rows_left_out) == (2, 2)
    encoder = statistics.finish()
    assert encoder.scaling.centre[0] == 2.0
    assert encoder.vocabularies == {"p": ("443", "80"), "t": ("a", "b")}


def test_a_null_in_a_row_that_is_left_out_does_not_count() -> None:
    table = pa.table({"x": [1.0, None], "y": [1.0, float("inf")]})
    encoder = fit(table, (Numeric("x"), Numeric("y")))
    assert [i.name for i in encoder.layout.numeric] == ["x", "y"]


def test_a_vocabulary_larger_than_the_sketch_keeps_the_frequent_values() -> None:
    statistics = EncoderFit((Categorical("x", max_values=3),), pa.schema({"x": pa.string()}))
    for part in range(10):
        rare = [f"{part}-{i}" for i in range(4000)]
        statistics.update(pa.record_batch({"x": rare + ["c"] * 300 + ["b"] * 200 + ["a"] * 400}))
    assert statistics.finish().vocabularies["x"] == ("a", "c", "b")
    assert len(statistics.to_bytes()) < 1_000_000


def test_statistics_are_json_and_give_the_same_encoder_after_a_round_trip() -> None:
    statistics = EncoderFit(COLUMNS, flows(1).schema)
    statistics.update(batch_of(flows(500)))
    data = statistics.to_bytes()
    assert json.loads(data)["rows"] == 500
    opened = EncoderFit.from_bytes(data)
    left, right = opened.finish(), statistics.finish()
    assert left.to_document() == right.to_document()
    for name, tensor in left.state_dict().items():
        assert torch.equal(tensor, right.state_dict()[name])
    with pytest.raises(Refusal, match=r"expected encoder statistics of format 4, found 99"):
        EncoderFit.from_bytes(data.replace(b'"format": 4', b'"format": 99'))


NULLS = [
    (Numeric("x"), pa.float64()),
    (Numeric("x", scale="quantile"), pa.int64()),
    (Boolean("x"), pa.bool_()),
    (Port("x"), pa.int32()),
    (IPAddress("x"), pa.string()),
    (Timestamp("x"), pa.timestamp("us")),
    (Vector("x"), pa.list_(pa.float64())),
    (Sequence("x"), pa.list_(pa.string())),
    (Text("x"), pa.string()),
    (Image("x"), pa.binary()),
]


@pytest.mark.parametrize(("column", "kind"), NULLS)
def test_a_column_that_is_always_null_is_refused_by_name(
    column: FeatureColumn, kind: pa.DataType
) -> None:
    table = pa.table({"x": pa.nulls(3, kind)})
    with pytest.raises(SchemaMismatch, match=r"column 'x': expected values .* null in all 3"):
        fit(table, (column,))


def test_a_category_that_is_always_null_is_a_value_of_its_own() -> None:
    table = pa.table({"x": pa.nulls(3, pa.string())})
    encoder = fit(table, (Categorical("x"),))
    assert encoder(encoder.extract(batch_of(table))).codes.tolist() == [[1], [1], [1]]


def test_whole_numbers_of_any_type_are_one_category() -> None:
    kinds = [pa.int64(), pa.float64(), pa.decimal128(38, 0)]
    encoder = fit(pa.table({"x": pa.array([443, 80, None], pa.int64())}), (Categorical("x"),))
    for kind in kinds:
        column = pa.array([443, 80, None]).cast(pa.int64()).cast(kind)
        found = encoder.extract(batch_of(pa.table({"x": column})))
        assert found.codes.tolist() == [[2], [3], [1]]
    broken = encoder.extract(batch_of(pa.table({"x": [443.5, 80.0]}))).problems
    assert [(one.row, one.rule) for one in broken] == [(0, "unparsable")]


def test_a_fit_without_usable_rows_is_refused() -> None:
    table = pa.table({"x": [float("nan")]})
    with pytest.raises(Refusal, match=r"found none without problems \(1 rows had one\)"):
        fit(table, (Numeric("x"),))


def test_fits_of_other_columns_are_not_merged() -> None:
    left = EncoderFit((Numeric("x"),), pa.schema({"x": pa.int64()}))
    right = EncoderFit((Numeric("x", log1p=True),), pa.schema({"x": pa.int64()}))
    with pytest.raises(Refusal, match=r"expected a fit of the same columns and types"):
        left.merge(right)


def test_a_batch_of_another_type_is_refused_while_fitting() -> None:
    statistics = EncoderFit((Numeric("x"),), pa.schema({"x": pa.int64()}))
    with pytest.raises(SchemaMismatch, match=r"column 'x': expected number .* \(string\)"):
        statistics.update(pa.record_batch({"x": ["1"]}))


@pytest.mark.parametrize(
    ("column", "data_type", "message"),
    [
        (Numeric("x"), pa.null(), "column 'x': expected a number (integer, float, decimal or"),
        (Numeric("x"), pa.list_(pa.int64()), "found list<item: int64>"),
        (
            Categorical("x"),
            pa.decimal128(9, 2),
            "expected text, a whole number or a boolean, found",
        ),
        (IPAddress("x"), pa.binary(), "column 'x': expected text, found binary"),
        (Port("x"), pa.string(), "column 'x': expected a whole number, found string"),
        (Timestamp("x"), pa.binary(), "expected a timestamp, a date32, text in ISO 8601, or a"),
        (Timestamp("x"), pa.int64(), "cast it in the input, or give the column another kind"),
    ],
)
def test_a_type_that_a_kind_of_column_cannot_use_is_refused(
    column: FeatureColumn, data_type: pa.DataType, message: str
) -> None:
    with pytest.raises(SchemaMismatch) as refused:
        EncoderFit((column,), pa.schema({"x": data_type}))
    assert message in str(refused.value)


def test_missing_and_repeated_columns_are_refused_before_reading() -> None:
    schema = pa.schema({"src": pa.string(), "dst_ip": pa.string()})
    with pytest.raises(SchemaMismatch, match=r"column 'dst' is not in the input; did you mean"):
        EncoderFit((IPAddress("src", same_network_as="dst"),), schema)
    with pytest.raises(Refusal, match=r"found 'src' more than once"):
        EncoderFit((IPAddress("src"), Categorical("src")), schema)
    with pytest.raises(Refusal, match=r"found none"):
        EncoderFit((), schema)
