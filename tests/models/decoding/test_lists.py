"""Vectors, series and events: shapes, scaling, padding and refusals."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.batch import Batch
from models.columns import Sequence, Vector
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.refusal import SchemaMismatch
from tests.models.flows import batch_of, fit, one_column


def encode(encoder: Encoder, values: Any) -> Batch:
    table = values if isinstance(values, pa.Table) else pa.table({encoder.required[0]: values})
    extracted = encoder.extract(batch_of(table))
    assert not extracted.problems
    encoded: Batch = encoder(extracted)
    encoded.check(encoder.layout)
    return encoded


def problems(encoder: Encoder, values: Any) -> list[tuple[int, str]]:
    found = encoder.extract(batch_of(pa.table({encoder.required[0]: values}))).problems
    return [(problem.row, problem.rule) for problem in found]


def fixed(values: Any, size: int, kind: pa.DataType | None = None) -> pa.Array:
    flat = np.asarray(values).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, kind or pa.float32()), size)


# Vectors


@pytest.mark.parametrize(
    "cast",
    [
        lambda a: a,
        lambda a: a.cast(pa.list_(pa.float64())),
        lambda a: a.cast(pa.large_list(pa.float64())),
        lambda a: a.cast(pa.list_(pa.decimal128(20, 9), 3)),
    ],
)
def test_elements_of_vectors_have_their_own_means_and_share_one_deviation(cast: Any) -> None:
    values = np.random.default_rng(0).normal([0, 10, -5], [1, 2, 30], (500, 3)).round(6)
    encoder = one_column(cast(fixed(values, 3, pa.float64())), Vector("v"))
    (signal,) = encoder.layout.signals
    assert (signal.name, signal.kind, signal.shape) == ("v", "vector", (3,))
    (encoded,) = encode(encoder, cast(fixed(values, 3, pa.float64()))).signals
    together = np.sqrt(values.var(0).mean())
    wanted = torch.from_numpy((values - values.mean(0)) / together).float()
    torch.testing.assert_close(encoded, wanted, rtol=1e-4, atol=1e-4)


def test_the_most_frequent_width_is_learned_and_others_are_a_problem() -> None:
    encoder = one_column([[1.0, 2.0], [9.0], [3.0, 5.0]], Vector("v"))
    assert encoder.layout.signals[0].shape == (2,)
    assert encoder.signal_scales[0].centre.ravel().tolist() == [2.0, 3.5]
    found = [[1.0, 2.0], [1.0], [1.0, 2.0, 3.0], []]
    assert problems(encoder, found) == [(row, "wrong_length") for row in (1, 2, 3)]


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ([1.0, float("nan")], "not_finite"),
        ([1.0, None], "not_finite"),
        ([float("inf"), 1.0], "not_finite"),
        ([1e300, 1.0], "overflow"),
        (None, "unexpected_null"),
    ],
)
def test_a_vector_that_cannot_be_used_is_a_problem(bad: Any, rule: str) -> None:
    encoder = one_column([[1.0, 2.0], [3.0, 5.0]], Vector("v"))
    assert problems(encoder, [[1.0, 2.0], bad, [0.0, 0.0]]) == [(1, rule)]


def test_a_null_vector_becomes_zeros_and_an_indicator_if_training_had_nulls() -> None:
    encoder = one_column([[1.0, 2.0], None, [3.0, 5.0]], Vector("v"))
    assert [given.name for given in encoder.layout.numeric] == ["v is null"]
    encoded = encode(encoder, [None, [1.0, 2.0]])
    assert encoded.numeric.tolist() == [[1.0], [0.0]]
    assert encoded.signals[0].tolist() == pytest.approx(
        np.array([[0.0, 0.0], [-1.0, -1.5]]) / np.sqrt((1.0 + 1.5**2) / 2)
    )


def test_a_slice_of_a_batch_gives_the_rows_of_the_whole() -> None:
    values = pa.array([[float(i), 2.0 * i] for i in range(9)])
    encoder = one_column(values, Vector("v"))
    part = encode(encoder, values.slice(4, 3)).signals[0]
    assert torch.equal(part, encode(encoder, values).signals[0][4:7])


# Series


def test_a_series_is_scaled_padded_on_the_left_and_masked() -> None:
    encoder = one_column([[1.0, 3.0], [1.0, 3.0, 1.0, 3.0]], Sequence("s", length=3))
    (signal,) = encoder.layout.signals
    assert (signal.kind, signal.shape, signal.masked) == ("series", (2, 3), True)
    encoded = encode(encoder, [[3.0], [1.0, 1.0, 1.0, 3.0]]).signals[0]
    assert encoded[0].tolist() == [[0, 0, 1], [0, 0, 1]]
    assert encoded[1].tolist() == [[-1, -1, 1], [1, 1, 1]]


def test_the_first_steps_are_kept_if_the_column_asks_for_it() -> None:
    encoder = one_column([[1.0, 3.0]], Sequence("s", length=3, keep="first"))
    encoded = encode(encoder, [[3.0], [3.0, 3.0, 1.0, 1.0]]).signals[0]
    assert encoded[0].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert encoded[1, 0].tolist() == [1, 1, -1]


def test_the_length_that_holds_most_rows_is_learned_and_bounded() -> None:
    usual = [[0.0] * (1 + row % 20) for row in range(200)]
    assert one_column(usual, Sequence("s")).layout.signals[0].shape == (2, 19)
    assert one_column([[0.0] * 3000], Sequence("s")).layout.signals[0].shape == (2, 512)
    assert one_column(pa.array([[]], pa.list_(pa.float64())), Sequence("s")).layout.signals[
        0
    ].shape == (2, 1)


def test_a_series_of_several_channels_takes_their_names_from_the_schema() -> None:
    steps = pa.list_(pa.list_(pa.float32(), 2))
    names = {b"channels": json.dumps(["bytes", "packets"]).encode()}
    schema = pa.schema([pa.field("s", steps, metadata=names)])
    table = pa.table({"s": pa.array([[[1, 10], [3, 30]], [[1, 10]]], steps)}, schema)
    encoder = fit(table, (Sequence("s", length=2),))
    (signal,) = encoder.layout.signals
    assert (signal.shape, signal.channels) == ((3, 2), ("bytes", "packets"))
    encoded = encode(encoder, table).signals[0]
    torch.testing.assert_close(encoded[0, 0], encoded[0, 1])  # each channel is scaled by itself
    assert encoded[1].tolist()[2] == [0, 1]


def test_windows_of_a_fixed_size_need_no_mask_until_one_is_padded() -> None:
    windows = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    whole = fixed_windows(windows)
    encoder = one_column(whole, Sequence("w"))
    (signal,) = encoder.layout.signals
    assert (signal.shape, signal.masked) == ((2, 3), False)
    windows[1, 0] = np.nan
    assert problems(encoder, fixed_windows(windows)) == [(1, "unexpected_null")]
    masked = one_column(fixed_windows(windows), Sequence("w"))
    assert masked.layout.signals[0].shape == (3, 3)
    encoded = encode(masked, fixed_windows(windows)).signals[0]
    assert encoded[1, :, 0].tolist() == [0, 0, 0]
    assert encoded[:, 2].sum() == 11


def fixed_windows(windows: Any) -> pa.Array:
    _, length, channels = windows.shape
    return pa.FixedSizeListArray.from_arrays(fixed(windows, channels), length)


def test_a_missing_number_in_a_step_becomes_the_mean_of_its_channel() -> None:
    windows = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    windows[1, 1, 0] = np.nan
    encoder = one_column(fixed_windows(windows), Sequence("w"))
    assert not encoder.layout.signals[0].masked
    assert encode(encoder, fixed_windows(windows)).signals[0][1, 0, 1] == 0


def test_an_infinite_step_is_a_problem_and_a_null_one_is_padding() -> None:
    encoder = one_column([[1.0, 2.0], [3.0, 4.0]], Sequence("s", length=2))
    assert problems(encoder, [[1.0, float("inf")], [1.0, None]]) == [(0, "not_finite")]
    assert encode(encoder, [[1.0, None]]).signals[0][0, 1].tolist() == [1, 0]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.list_(pa.float32())), pa.large_list(pa.large_list(pa.float64()))]
)
def test_lists_of_equally_long_lists_are_a_series_like_fixed_size_lists(kind: pa.DataType) -> None:
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=(n, 3)).astype(np.float32).tolist() for n in rng.integers(1, 6, 200)]
    rows[3][0] = None
    rows[4][0] = [1.0, None, 2.0]
    known = pa.array(rows, pa.list_(pa.list_(pa.float32(), 3)))
    same, uneven = one_column(known, Sequence("s")), one_column(pa.array(rows, kind), Sequence("s"))
    assert uneven.layout == same.layout
    assert uneven.layout.signals[0].shape == (4, 5)
    encoded = encode(uneven, pa.array(rows, kind)).signals[0]
    torch.testing.assert_close(encoded, encode(same, known).signals[0])


def test_rows_with_lists_of_unequal_length_are_problems() -> None:
    kind = pa.list_(pa.list_(pa.float64()))
    good = [[1.0, 2.0], [3.0, 5.0]]
    encoder = one_column(pa.array([good] * 3 + [[[1.0]]], kind), Sequence("s"))
    assert encoder.layout.signals[0].shape == (3, 2)
    rows: list[Any] = [good, [[1.0], [1.0, 2.0]], [[1.0, 2.0, 3.0]], [[]], [[1.0, float("inf")]]]
    found = problems(encoder, pa.array([*rows, None, [[1.0, 2.0], None], []], kind))
    assert sorted(found) == [
        (1, "wrong_length"),
        (2, "wrong_length"),
        (3, "wrong_length"),
        (4, "not_finite"),
        (5, "unexpected_null"),
    ]
    widest = pa.array([[[0.0] * 65_536, *[None] * 400]], kind)  # 26 million numbers in 64 thousand
    assert problems(encoder, widest) == [(0, "wrong_length")]


# Events


@pytest.mark.parametrize(
    "events",
    [
        pa.array([["b", "a"], ["a"], ["a", "c", None]]),
        pa.array([["b", "a"], ["a"], ["a", "c", None]], pa.large_list(pa.large_string())),
        pa.array([[2, 1], [1], [1, 3, None]]),
        pa.ListArray.from_arrays(
            [0, 2, 3, 6], pa.array(["b", "a", "a", "a", "c", None]).dictionary_encode()
        ),
    ],
)
def test_events_are_codes_by_frequency_with_padding_and_other(events: pa.Array) -> None:
    encoder = one_column(events, Sequence("e", max_values=2, length=3))
    (tokens,) = encoder.layout.tokens
    assert (tokens.name, tokens.size, tokens.length) == ("e", 4, 3)
    assert not encoder.layout.categories
    assert encode(encoder, events).tokens[0].tolist() == [[0, 3, 2], [0, 0, 2], [2, 1, 1]]


def test_an_empty_list_of_events_is_all_padding_and_a_null_is_a_problem() -> None:
    encoder = one_column([["a", "b"]], Sequence("e"))
    kind = pa.list_(pa.string())
    assert encode(encoder, pa.array([[]], kind)).tokens[0].tolist() == [[0, 0]]
    assert problems(encoder, pa.array([None], kind)) == [(0, "unexpected_null")]


def test_an_event_that_is_not_utf8_is_a_problem_of_its_row() -> None:
    encoder = one_column([["a", "b"]], Sequence("e"))
    raw = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    assert problems(encoder, pa.ListArray.from_arrays([0, 1, 3], raw)) == [(1, "invalid_utf8")]


# Statistics


def test_merging_the_fits_of_two_halves_equals_fitting_all_rows() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(0, 12, 300)
    table = pa.table(
        {
            "v": fixed(rng.normal(3, 4, (300, 5)), 5),
            "s": [rng.normal(size=n).tolist() for n in lengths],
            "e": [rng.integers(0, 9, n).tolist() for n in lengths],
        }
    )
    columns = (Vector("v"), Sequence("s"), Sequence("e"))
    whole = fit(table, columns)
    halves = [EncoderFit(columns, table.schema) for _ in range(2)]
    for half, rows in zip(halves, (table.slice(0, 110), table.slice(110)), strict=True):
        half.update(batch_of(rows))
    merged = EncoderFit.from_bytes(halves[1].to_bytes())
    merged.merge(halves[0])
    encoder = merged.finish()
    assert encoder.layout == whole.layout
    assert encoder.vocabularies == whole.vocabularies
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], tensor, msg=name)


def test_a_row_with_a_problem_elsewhere_is_not_counted() -> None:
    table = pa.table({"v": [[1.0], [3.0], [float("inf")]], "s": [[1.0], [1.0], [9.0] * 9]})
    encoder = fit(table, (Vector("v"), Sequence("s")))
    assert [signal.shape for signal in encoder.layout.signals] == [(1,), (2, 1)]


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (Vector("x"), pa.list_(pa.string())),
        (Vector("x"), pa.float64()),
        (Sequence("x"), pa.list_(pa.list_(pa.string()))),
        (Sequence("x"), pa.string()),
    ],
)
def test_a_list_of_something_else_is_refused(column: Any, kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'x': expected a list of"):
        EncoderFit((column,), pa.schema({"x": kind}))


def test_events_that_become_numbers_are_refused() -> None:
    encoder = one_column([["a"]], Sequence("x"))
    with pytest.raises(SchemaMismatch, match=r"expected events of text .* found steps of 1"):
        encoder.extract(pa.record_batch({"x": [[1.0]]}))
