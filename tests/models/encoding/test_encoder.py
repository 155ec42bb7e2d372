"""The encoder: the inputs of each kind of column, and the independence of rows."""

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load, save

from models.columns import Categorical, IPAddress, Numeric, Port, Timestamp
from models.encoding.encoder import Encoder
from models.refusal import Refusal
from tests.models.flows import (
    COLUMNS,
    assert_same,
    column_of,
    encode,
    extract_one,
    fit,
    flows,
    one_column,
)

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
