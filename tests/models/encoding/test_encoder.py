"""The encoder: the inputs of each kind of column, refusals, and the independence of rows."""

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, save

from models.batch import Batch
from models.columns import Boolean, Categorical, FeatureColumn, IPAddress, Numeric, Port, Timestamp
from models.decoding.scalars import Problem
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.refusal import Refusal, SchemaMismatch
from tests.models.flows import COLUMNS, batch_of, fit, flows, one_column


def encode(encoder: Encoder, table: pa.Table) -> Batch:
    extracted = encoder.extract(batch_of(table))
    encoded: Batch = encoder(extracted)
    return encoded


def column_of(encoder: Encoder, table: pa.Table, name: str) -> list[float]:
    names = [i.name for i in encoder.layout.numeric]
    values: list[float] = encode(encoder, table).numeric[:, names.index(name)].tolist()
    return values


def extract_one(encoder: Encoder, values: Any) -> RawBatch:
    return encoder.extract(batch_of(pa.table({encoder.required[0]: values})))


def assert_same(left: Batch, right: Batch) -> None:
    assert torch.equal(left.numeric, right.numeric)
    assert torch.equal(left.codes, right.codes)


# The inputs that columns become


def test_the_layout_names_every_feature_in_order() -> None:
    layout = fit(flows()).layout
    assert [i.name for i in layout.numeric] == [
        "duration",
        "bytes",
        "packets",
        "established",
        "src is private",
        "src is multicast",
        "src is reserved",
        "src in the network of dst",
        "dst_port is well-known",
        "dst_port is registered",
        "dst_port is ephemeral",
        "hour of ts (sin)",
        "hour of ts (cos)",
        "weekday of ts (sin)",
        "weekday of ts (cos)",
    ]
    assert {i.name for i in layout.numeric if i.kind == "binary"} == {
        i.name for i in layout.numeric[3:11]
    }
    assert [(c.name, c.size, c.embedding) for c in layout.categories] == [
        ("proto", 4, 0),
        ("service", 4, 3),
        ("dst_port", 4, 0),
    ]


def test_the_shape_and_type_of_a_batch_are_those_of_the_contract() -> None:
    encoder = fit(flows())
    encoded = encode(encoder, flows(50))
    assert encoded.numeric.dtype == torch.float32
    assert encoded.numeric.shape == (50, len(encoder.layout.numeric))
    assert encoded.codes.dtype == torch.int64
    assert encoded.codes.shape == (50, 3)
    assert encoded.numeric.T.is_contiguous()  # each column is contiguous
    assert encoder.bytes_per_row == 4 * 15 + 4 * 15 + 8 * 3


def test_a_batch_without_rows_is_encoded_to_one_without_rows() -> None:
    encoder = fit(flows())
    assert encode(encoder, flows(0)).numeric.shape == (0, 15)


@pytest.mark.parametrize("log1p", [False, True])
@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_numbers_are_scaled_to_about_zero_mean_and_unit_variance(scale: Any, log1p: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(1500, generator=generator).double() * 3 + 10
    values = (numbers.exp() if log1p else numbers).numpy()
    encoder = one_column(values, Numeric("x", scale=scale, log1p=log1p, clip=None))
    encoded = encode(encoder, pa.table({"x": values})).numeric
    assert abs(float(encoded.mean())) < 0.3
    assert 0.7 < float(encoded.std()) < 1.3


def test_a_quantile_scale_gives_normal_scores_also_beyond_the_training_values() -> None:
    values = [float(x) for x in range(1, 1000)]
    encoder = one_column(values, Numeric("x", scale="quantile", clip=None))
    probe = pa.table({"x": [500.0, 841.3, 999.0, 2000.0, 4000.0, -1000.0]})
    middle, one, last, beyond, further, below = column_of(encoder, probe, "x")
    assert middle == pytest.approx(0, abs=0.01)
    assert one == pytest.approx(1, abs=0.02)
    assert last < beyond < further
    assert further - beyond == pytest.approx(2000 / 288.4, rel=0.01)  # in standard deviations
    assert below < -4


def test_a_value_on_a_tie_of_a_quantile_scale_has_the_score_of_the_middle_of_its_ranks() -> None:
    encoder = one_column([0.0] * 90 + [float(x) for x in range(1, 11)], Numeric("x", "quantile"))
    zero = column_of(encoder, pa.table({"x": [0.0]}), "x")[0]
    assert zero == pytest.approx(-0.1257, abs=0.001)  # the normal score of rank 0.45


@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_a_constant_column_is_zero_and_another_value_stands_out(scale: Any) -> None:
    encoder = one_column([0.1] * 50, Numeric("x", scale))
    assert column_of(encoder, pa.table({"x": [0.1]}), "x") == [0.0]
    assert column_of(encoder, pa.table({"x": [3.1]}), "x") == pytest.approx([3.0])


def test_a_robust_scale_of_an_almost_constant_column_falls_back_to_the_deviation() -> None:
    encoder = one_column([5.0] * 98 + [0.0, 10.0], Numeric("x", "robust", clip=None))
    assert column_of(encoder, pa.table({"x": [10.0]}), "x") == pytest.approx([5 / math.sqrt(0.5)])


def test_numbers_far_from_zero_keep_their_differences() -> None:
    values = [1.7e9 + step / 10 for step in range(100)]  # epoch seconds; float32 steps by 128
    encoder = one_column(values, Numeric("x"))
    scaled = column_of(encoder, pa.table({"x": values}), "x")
    assert all(left < right for left, right in pairwise(scaled))
    assert scaled[-1] == pytest.approx(1.715, abs=0.01)


def test_scaled_numbers_are_clipped_at_the_bound_of_the_column() -> None:
    encoder = one_column([0.0, 1.0, 2.0], Numeric("x", clip=4.0))
    assert column_of(encoder, pa.table({"x": [1e9, -1e9]}), "x") == [4.0, -4.0]


@pytest.mark.parametrize("scale", ["standard", "robust", "quantile"])
def test_the_largest_numbers_stay_finite_without_clipping(scale: Any) -> None:
    encoder = one_column([1e-30, 2e-30, 3e-30], Numeric("x", scale, clip=None))
    encoded = encode(encoder, pa.table({"x": [3.4e38, -3.4e38]})).numeric
    assert encoded.square().isfinite().all()


def test_a_null_is_imputed_and_indicated_if_training_had_nulls() -> None:
    encoder = one_column([1.0, None, 3.0, 100.0], Numeric("x"))
    assert [i.name for i in encoder.layout.numeric] == ["x", "x is null"]
    table = pa.table({"x": [None, 3.0]})
    assert column_of(encoder, table, "x")[0] == 0.0
    assert column_of(encoder, table, "x is null") == [1.0, 0.0]


def test_codes_go_from_the_most_frequent_value_to_the_rarest_and_ties_by_value() -> None:
    encoder = one_column(["b", "a", "c", "c", None], Categorical("x"))
    assert encoder.vocabularies == {"x": ("c", "a", "b")}
    codes = extract_one(encoder, ["c", "a", "b", None, "new"]).codes[:, 0]
    assert codes.tolist() == [2, 3, 4, 1, 0]


def test_values_beyond_the_most_frequent_ones_are_other() -> None:
    encoder = one_column(["a"] * 3 + ["b"] * 2 + ["c"], Categorical("x", max_values=2))
    assert extract_one(encoder, ["a", "b", "c"]).codes[:, 0].tolist() == [2, 3, 0]


@pytest.mark.parametrize(
    ("values", "known"),
    [(pa.array([6, 17, 6]), ("6", "17")), (pa.array([True, False, True]), ("true", "false"))],
)
def test_integers_and_booleans_are_categories_too(values: pa.Array, known: tuple[str]) -> None:
    encoder = one_column(values, Categorical("x"))
    assert encoder.vocabularies["x"] == known
    assert extract_one(encoder, values).codes[:, 0].tolist() == [2, 3, 2]


def test_ports_are_classed_and_the_top_ones_named() -> None:
    encoder = one_column([80, 80, 80, 443, 443, 5000], Port("p", top=2))
    probe = pa.table({"p": [443, 1024, 49_152]})
    assert encode(encoder, probe).numeric.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert encode(encoder, probe).codes[:, 0].tolist() == [3, 0, 0]


def test_an_address_that_is_only_referred_to_is_required_but_not_a_feature() -> None:
    encoder = fit(flows())
    assert encoder.required[-1] == "dst"
    assert "dst" not in [column.name for column in encoder.columns]
    table = pa.table({"src": ["10.0.0.1", "10.0.0.1"], "dst": ["10.0.0.9", "10.0.1.9"]})
    near = fit(table, (IPAddress("src", same_network_as="dst"),))
    assert column_of(near, table, "src in the network of dst") == [1.0, 0.0]


def test_hours_and_weekdays_are_points_on_a_circle_in_utc() -> None:
    sunday = datetime(2026, 11, 22, 6, tzinfo=UTC)
    zone = timezone(timedelta(hours=-5))
    values = [sunday, sunday.astimezone(zone), datetime(1969, 12, 31, 18, tzinfo=UTC)]
    naive = pa.array([value.astimezone(UTC).replace(tzinfo=None) for value in values])
    zoned = pa.array(values, pa.timestamp("us", "America/New_York"))
    left, right = one_column(naive, Timestamp("t")), one_column(zoned, Timestamp("t"))
    values_left, values_right = extract_one(left, naive).values, extract_one(right, zoned).values
    np.testing.assert_array_equal(values_left, values_right)
    assert values_left[0, :2].tolist() == pytest.approx([1, 0], abs=1e-6)  # six in the morning
    assert values_left[2, :2].tolist() == pytest.approx([-1, 0], abs=1e-6)
    angle = 2 * math.pi * 6 / 7
    assert values_left[0, 2:].tolist() == pytest.approx([math.sin(angle), math.cos(angle)])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_every_unit_of_time_gives_the_same_hour(unit: str) -> None:
    times = pa.array([datetime(2026, 1, 1, 3, 12)]).cast(pa.timestamp(unit))
    values = extract_one(one_column(times, Timestamp("t")), times).values
    assert math.degrees(math.atan2(values[0, 0], values[0, 1])) == pytest.approx(48)


def test_a_date_has_a_weekday_but_no_hour() -> None:
    encoder = one_column(pa.array([date(2026, 11, 22)]), Timestamp("t"))
    assert [i.name for i in encoder.layout.numeric] == ["weekday of t (sin)", "weekday of t (cos)"]


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


# Rows and saving


def test_a_row_gives_the_same_output_in_any_batch() -> None:
    encoder = fit(flows(500))
    table = flows(101, seed=8)
    whole = encode(encoder, table)
    for size in (1, 2, 7, 100):
        parts = [encode(encoder, table.slice(at, size)) for at in range(0, len(table), size)]
        assert torch.equal(torch.cat([part.numeric for part in parts]), whole.numeric)
        assert torch.equal(torch.cat([part.codes for part in parts]), whole.codes)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(3))
    shuffled = encode(encoder, table.take(order.numpy()))
    assert torch.equal(shuffled.numeric, whole.numeric[order])


def test_a_saved_encoder_gives_bit_equal_output() -> None:
    table = flows(300)
    nullable = table.set_column(0, "duration", pa.array([None, *table["duration"].to_pylist()[1:]]))
    encoder = fit(nullable)
    document = json.loads(json.dumps(encoder.to_document(), allow_nan=False))
    tensors = load(save({k: v.contiguous() for k, v in encoder.state_dict().items()}))
    opened = Encoder.from_document(document, tensors)
    assert opened.layout == encoder.layout
    assert opened.columns == COLUMNS
    assert_same(encode(opened, nullable), encode(encoder, nullable))
    assert opened.to_document() == encoder.to_document()


def test_a_document_with_the_tensors_of_another_encoder_is_refused() -> None:
    encoder, other = fit(flows()), one_column([1.0, 2.0], Numeric("x"))
    with pytest.raises(Refusal, match=r"expected scales for 15 inputs, found 1"):
        Encoder.from_document(encoder.to_document(), other.state_dict())
    with pytest.raises(Refusal, match=r"expected the encoder's tensors .*; found none"):
        Encoder.from_document(encoder.to_document(), {})
    document = one_column([1.0], Numeric("x")).to_document()
    document["sources"][0]["column"]["kind"] = "Secret"
    with pytest.raises(Refusal, match=r"unknown kind of column 'Secret'"):
        Encoder.from_document(document, other.state_dict())
