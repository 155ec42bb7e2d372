"""The extractor: other Arrow types of the same values, cells that cannot be used, and schemas."""

import math
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.columns import Boolean, Categorical, FeatureColumn, IPAddress, Numeric, Port, Timestamp
from models.decoding.scalars import Problem
from models.refusal import SchemaMismatch
from tests.models.flows import assert_same, batch_of, encode, extract_one, fit, flows, one_column

# The same values in other Arrow types


@pytest.mark.parametrize(
    "cast",
    [
        lambda a: a.cast(pa.large_string()),
        lambda a: a.cast(pa.string_view()),
        lambda a: a.dictionary_encode(),
        lambda a: a.cast(pa.large_string()).dictionary_encode(),
        lambda a: pa.DictionaryArray.from_arrays(  # a null inside the dictionary, unused entries
            pa.array([2, 1, 0, 3], pa.uint8()), pa.array(["gre", "udp", "tcp", None])
        ),
    ],
)
def test_text_gives_the_same_codes_in_every_arrow_type(cast: Any) -> None:
    plain = pa.array(["tcp", "udp", "gre", None])
    encoder = one_column(pa.array(["tcp", "tcp", "udp"]), Categorical("x"))
    assert extract_one(encoder, cast(plain)).codes[:, 0].tolist() == [2, 3, 0, 1]
    assert one_column(cast(plain), Categorical("x")).vocabularies["x"] == ("gre", "tcp", "udp")


@pytest.mark.parametrize(
    "data_type",
    [pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.decimal128(9, 2), pa.decimal256(60, 2)],
)
def test_numbers_give_the_same_values_in_every_arrow_type(data_type: pa.DataType) -> None:
    encoder = one_column(pa.array([1.0, 2.0, None]), Numeric("x"))
    decimals = pa.array([Decimal(1), None, Decimal(3)], pa.decimal128(9, 2))
    values = decimals.cast(pa.float64()).cast(data_type)
    found = extract_one(encoder, values)
    assert found.values[[0, 2], 0].tolist() == [1.0, 3.0]
    assert np.isnan(found.values[1, 0])
    assert not found.problems


def test_dictionary_encoded_addresses_and_numbers_are_accepted() -> None:
    table = flows()
    encoded = table
    for name in ("src", "dst", "proto", "service", "packets", "dst_port"):
        at = encoded.schema.get_field_index(name)
        encoded = encoded.set_column(at, name, encoded.column(name).dictionary_encode())
    assert_same(encode(fit(table), table), encode(fit(encoded), encoded))


def test_ports_as_floats_are_accepted_because_pandas_writes_them_for_nulls() -> None:
    encoder = one_column(pa.array([80, None, 443]), Port("p"))
    found = extract_one(encoder, pa.array([80.0, None, 443.0, 80.5]))
    assert found.codes[:, 0].tolist() == [3, 1, 2, 0]
    assert found.problems == (Problem(3, "p", "unparsable"),)


def test_integers_above_two_to_the_53_are_rounded_not_refused() -> None:
    encoder = one_column(pa.array([2**60 + 1, 0]), Numeric("x"))
    assert not extract_one(encoder, pa.array([2**60 + 1])).problems


# Cells that cannot be used


@pytest.mark.parametrize(
    ("column", "good", "bad", "rule"),
    [
        (Numeric("x"), [1.0, 2.0], math.nan, "not_finite"),
        (Numeric("x"), [1.0, 2.0], math.inf, "not_finite"),
        (Numeric("x"), [1.0, 2.0], -math.inf, "not_finite"),
        (Numeric("x", low=0), [1.0, 2.0], math.nan, "not_finite"),
        (Numeric("x"), [1.0, 2.0], 1e39, "overflow"),
        (Numeric("x", low=0, high=10), [1.0, 2.0], -1e-9, "out_of_range"),
        (Numeric("x", low=0, high=10), [1.0, 2.0], 10.1, "out_of_range"),
        (Numeric("x"), [1.0, 2.0], None, "unexpected_null"),
        (Boolean("x"), [1, 0], 2, "unparsable"),
        (Boolean("x"), [True, False], None, "unexpected_null"),
        (Port("x"), [80, 443], 65_536, "out_of_range"),
        (Port("x"), [80, 443], -1, "out_of_range"),
        (Port("x"), [80, 443], None, "unexpected_null"),
        (Port("x"), [80.0, 443.0], math.nan, "not_finite"),
        (IPAddress("x"), ["10.0.0.1", "::1"], "10.0.0.256", "unparsable"),
        (IPAddress("x"), ["10.0.0.1", "::1"], "10.0.0", "unparsable"),
        (IPAddress("x"), ["10.0.0.1", "::1"], "-", "unexpected_null"),
        (IPAddress("x"), ["10.0.0.1", "::1"], "", "unparsable"),
        (IPAddress("x"), ["10.0.0.1", "::1"], None, "unexpected_null"),
        (Timestamp("x"), [datetime(2026, 1, 1)] * 2, None, "unexpected_null"),
    ],
)
def test_a_cell_that_cannot_be_used_is_named_with_row_column_and_rule(
    column: FeatureColumn, good: list[Any], bad: Any, rule: str
) -> None:
    encoder = one_column(good, column)
    data_type = pa.array(good).type
    found = extract_one(encoder, pa.array([good[0], bad, good[1]], data_type))
    assert found.problems == (Problem(1, "x", rule),)
    assert np.isfinite(found.values).all()
    assert not found.values[1].any()
    assert not found.codes[1].any()
    others = extract_one(encoder, pa.array(good, data_type))
    np.testing.assert_array_equal(found.values[[0, 2]], others.values)


def test_a_null_in_a_column_with_a_range_is_not_a_problem_if_training_had_nulls() -> None:
    encoder = one_column([5.0, None], Numeric("x", low=1, high=10))
    found = extract_one(encoder, [None, 6.0, 0.5])
    assert found.problems == (Problem(2, "x", "out_of_range"),)


@pytest.mark.parametrize("cast", [lambda a: a, lambda a: a.dictionary_encode()])
@pytest.mark.parametrize("column", [Categorical("x"), IPAddress("x")])
def test_invalid_utf8_is_a_problem_and_does_not_break_the_batch(
    column: FeatureColumn, cast: Any, tmp_path: Path
) -> None:
    encoder = one_column(["10.0.0.1", "10.0.0.2", "10.0.0.1"], column)
    raw = pa.array([b"10.0.0.1", b"\xff\xfe", b"10.0.0.2"]).view(pa.string())
    pq.write_table(pa.table({"x": cast(raw)}), tmp_path / "day.parquet")
    found = encoder.extract(batch_of(pq.read_table(tmp_path / "day.parquet")))
    assert found.problems == (Problem(1, "x", "invalid_utf8"),)
    if isinstance(column, Categorical):
        assert found.codes[:, 0].tolist() == [2, 0, 3]


def test_a_text_of_a_megabyte_gets_the_code_of_other() -> None:
    encoder = one_column(["tcp", "x" * 1_000_000, "x" * 1_000_000], Categorical("x"))
    assert encoder.vocabularies["x"] == ("tcp",)
    assert extract_one(encoder, ["y" * 1_000_000, "tcp"]).codes[:, 0].tolist() == [0, 2]


def test_problems_of_several_columns_come_by_row() -> None:
    encoder = fit(flows())
    rows = flows(3).to_pylist()
    rows[0]["dst"] = "nowhere"
    rows[2]["duration"] = math.inf
    rows[0]["packets"] = -1
    found = encoder.extract(pa.RecordBatch.from_pylist(rows, flows(1).schema))
    assert found.problems == (
        Problem(0, "packets", "out_of_range"),
        Problem(0, "dst", "unparsable"),
        Problem(2, "duration", "not_finite"),
    )


# Schemas


def test_a_missing_column_is_refused_with_the_nearest_name() -> None:
    encoder = fit(flows())
    schema = flows(1).rename_columns({"duration": "durration"}).schema
    with pytest.raises(SchemaMismatch) as refused:
        encoder.check_schema(schema)
    assert str(refused.value) == (
        "column 'duration' is not in the input; did you mean 'durration'? The input has 10 "
        "columns: durration, bytes, packets, proto, service, established, src, dst, dst_port, ts"
    )


def test_a_column_that_occurs_twice_is_refused() -> None:
    schema = flows(1).schema.append(pa.field("bytes", pa.int64()))
    with pytest.raises(SchemaMismatch, match=r"column 'bytes': expected once, found 2 columns"):
        fit(flows()).check_schema(schema)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "bytes",
            pa.array(["1", "2"]),
            "column 'bytes': expected number (double in training), found an unusable type "
            "(string); cast it in the input, or train again on the new type",
        ),
        ("proto", pa.array([6, 17]), "expected text (string in training), found integer (int64)"),
        ("src", pa.array([1, 2]), "column 'src': expected text"),
        ("packets", pa.array([[1], [2]]), "found an unusable type (list<item: int64>)"),
        (
            "ts",
            pa.array([0, 1], pa.timestamp("us", "UTC")),
            "column 'ts': expected timestamp without a zone (timestamp[us] in training), found "
            "timestamp with a zone (timestamp[us, tz=UTC])",
        ),
        ("ts", pa.array([0, 1], pa.date32()), "found date (date32[day])"),
    ],
)
def test_a_changed_type_or_zone_is_refused_with_the_column_named(
    name: str, values: pa.Array, message: str
) -> None:
    encoder = fit(flows())
    table = flows(2)
    changed = table.set_column(table.schema.get_field_index(name), name, values)
    with pytest.raises(SchemaMismatch) as refused:
        encoder.check_schema(changed.schema)
    assert message in str(refused.value)
    with pytest.raises(SchemaMismatch):
        encoder.extract(batch_of(changed))


def test_a_column_without_a_type_is_all_null() -> None:
    table = flows(4)
    encoder = fit(table)
    for name in table.column_names:
        place = table.schema.get_field_index(name)
        typed = table.set_column(place, name, pa.nulls(4, table.schema.field(name).type))
        untyped = table.set_column(place, name, pa.nulls(4))
        found, wanted = (encoder.extract(batch_of(one)) for one in (untyped, typed))
        assert found.problems == wanted.problems
        np.testing.assert_array_equal(found.values, wanted.values)
        np.testing.assert_array_equal(found.codes, wanted.codes)


def test_a_time_has_one_encoding_in_every_unit() -> None:
    encoder = fit(flows())
    table = flows(4)
    wanted = encoder.extract(batch_of(table)).values
    for unit in ("ms", "ns"):
        place, stamp = table.schema.get_field_index("ts"), pa.timestamp(unit)
        other = table.set_column(place, "ts", table.column("ts").cast(stamp, safe=False))
        np.testing.assert_allclose(
            encoder.extract(batch_of(other)).values, wanted, rtol=1e-5, atol=1e-8
        )


def test_every_column_that_does_not_fit_is_named_at_once() -> None:
    table = flows(2).drop_columns(["bytes", "proto"])
    with pytest.raises(SchemaMismatch, match=r"(?s)column 'bytes'.*column 'proto'"):
        fit(flows()).check_schema(table.schema)


def test_extra_reordered_and_wider_columns_are_accepted() -> None:
    encoder = fit(flows())
    table = flows(20)
    other = table.select(table.column_names[::-1]).append_column("note", pa.array(["x"] * 20))
    at = other.schema.get_field_index("packets")
    other = other.set_column(at, "packets", other.column("packets").cast(pa.int32()))
    encoder.check_schema(other.schema)
    assert_same(encode(encoder, table), encode(encoder, other))
