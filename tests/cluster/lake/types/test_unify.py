"""One type for files that differ, and casts that report what they would change."""

from datetime import datetime
from decimal import Decimal
from itertools import combinations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.lake.types.casting import cast_exactly
from cluster.lake.types.unify import canonical, unify

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
UNSIGNED = [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
DECIMALS = st.integers(1, 76).flatmap(
    lambda precision: st.integers(0, precision).map(
        lambda scale: (pa.decimal128 if precision <= 38 else pa.decimal256)(precision, scale)
    )
)
STAMPS = [pa.timestamp(u, z) for u in ("ms", "us", "ns") for z in (None, "UTC", "Europe/Berlin")]
PLAIN = st.one_of(
    st.sampled_from([pa.bool_(), *INTEGERS, *UNSIGNED, pa.float16(), pa.float32(), pa.float64()]),
    DECIMALS,
    st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]),
    st.sampled_from([pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(16)]),
    st.sampled_from([*STAMPS, pa.date32(), pa.time32("ms"), pa.time64("ns")]),
    st.just(pa.null()),
)
TYPES = st.one_of(
    PLAIN,
    PLAIN.map(pa.list_),
    PLAIN.map(pa.large_list),
    PLAIN.map(lambda kind: pa.list_(kind, 2)),
    st.dictionaries(st.sampled_from("abc"), PLAIN).map(lambda fields: pa.struct(fields.items())),
    PLAIN.map(lambda kind: pa.map_(pa.string(), kind)),
    st.sampled_from([pa.string(), pa.int64()]).map(lambda kind: pa.dictionary(pa.int8(), kind)),
)


def join(*types: pa.DataType | None) -> pa.DataType | None:
    known = [kind for kind in types if kind is not None]
    return unify(known) if len(known) == len(types) else None


@given(TYPES, TYPES, TYPES)
def test_neither_order_nor_grouping_of_types_matters(a: Any, b: Any, c: Any) -> None:
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c)) == join(a, b, c)
    assert join(a, a) == canonical(a) == join(a, pa.null())


NUMBERS = st.one_of(
    st.sampled_from([pa.bool_(), *INTEGERS, *UNSIGNED, pa.float16(), pa.float32(), pa.float64()]),
    DECIMALS,
)


@st.composite
def number_columns(draw: st.DrawFn) -> pa.Array:
    kind = draw(NUMBERS)
    return pa.array(draw(st.lists(st.none() | numbers_of(kind), max_size=5)), kind)


def numbers_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_floating(kind):
        return st.floats(width=kind.bit_width, allow_nan=False, allow_infinity=False)
    if pa.types.is_decimal(kind):
        most = 10**kind.precision - 1
        return st.integers(-most, most).map(lambda n: _shift(n, kind.scale))
    bits = kind.bit_width - pa.types.is_signed_integer(kind)
    least = -(2**bits) if pa.types.is_signed_integer(kind) else 0
    return st.integers(least, 2**bits - 1) | st.integers(max(least, -300), 100)


def _shift(number: int, scale: int) -> Decimal:
    digits = tuple(map(int, str(abs(number))))
    return Decimal((int(number < 0), digits, -scale))


@given(number_columns(), NUMBERS)
def test_every_number_survives_the_common_type_or_is_reported(column: pa.Array, other: Any) -> None:
    common = unify([column.type, other])
    assert common is not None
    cast = cast_exactly(column, common)
    floats = [pa.types.is_floating(kind) for kind in (column.type, common)]
    if not any(floats):
        assert cast.changed is None
    for row, (before, after) in enumerate(
        zip(column.to_pylist(), cast.values.to_pylist(), strict=True)
    ):
        if cast.changed is not None and cast.changed[row]:
            continue
        if before is not None and isinstance(before, Decimal) and isinstance(after, float):
            assert Decimal(repr(after)) == before  # at most 15 digits: they come back
        else:
            assert after == before


@pytest.mark.parametrize(
    ("types", "common"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.int64(), pa.float64()], pa.float64()),
        ([pa.int64(), pa.uint64()], pa.decimal128(20, 0)),
        ([pa.decimal128(38, 0), pa.int64()], pa.decimal128(38, 0)),
        ([pa.decimal128(10, 2), pa.int64()], pa.decimal128(21, 2)),
        ([pa.date64(), pa.date32()], pa.date32()),
        ([pa.duration("s"), pa.duration("us")], pa.duration("us")),
        ([pa.list_(pa.int32()), pa.large_list(pa.int64())], pa.list_(pa.int64())),
        ([pa.dictionary(pa.int32(), pa.string()), pa.large_string()], pa.string()),
        ([pa.timestamp("ms"), pa.timestamp("ns")], pa.timestamp("us")),
        ([pa.timestamp("ms"), pa.timestamp("ms", "UTC")], None),
        ([pa.null(), pa.string()], pa.string()),
        ([pa.int64(), pa.string()], None),
        ([pa.binary(16), pa.binary(16)], pa.binary(16)),
        ([pa.binary(16), pa.large_binary()], pa.binary()),
    ],
)
def test_types_of_one_family_have_a_common_type(types: list[Any], common: Any) -> None:
    assert unify(types) == common


def test_what_a_type_cannot_hold_is_reported_and_the_rest_is_kept() -> None:
    open_end = datetime(9999, 12, 31)
    times = cast_exactly(pa.array([0, 1, 1_000], pa.timestamp("ns")), pa.timestamp("us"))
    assert times.changed is not None
    assert times.changed.tolist() == [False, True, False]
    assert times.values.to_pylist() == [
        datetime(1970, 1, 1),
        datetime(1970, 1, 1),
        datetime(1970, 1, 1, 0, 0, 0, 1),
    ]
    far = cast_exactly(pa.array([open_end], pa.timestamp("ms")), pa.timestamp("us"))
    assert far.values.to_pylist() == [open_end]
    spans = cast_exactly(pa.array([2**60, 1]).cast(pa.duration("s")), pa.duration("us"))
    assert spans.changed is not None
    assert spans.changed.tolist() == [True, False]
    whole = cast_exactly(pa.array([1.0, 1.5, float("nan"), None]), pa.int64())
    assert whole.values.to_pylist() == [1, None, None, None]
    assert whole.changed is not None
    assert whole.changed.tolist() == [False, True, True, False]
    exact = cast_exactly(pa.array([0.5, 0.125]), pa.decimal128(10, 2))
    assert exact.changed is not None
    assert exact.changed.tolist() == [False, True]


@given(st.lists(TYPES, min_size=2, max_size=4))
def test_a_common_type_is_common_to_each_pair(types: list[pa.DataType]) -> None:
    if unify(types) is not None:
        assert all(unify(pair) is not None for pair in combinations(types, 2))


@st.composite
def nested_types(draw: st.DrawFn, depth: int = 2) -> pa.DataType:
    """Types whose structs have some of the fields a, b, c in any order, each always of one kind."""
    fields = draw(st.lists(st.sampled_from("abc"), unique=True, min_size=1))
    of_a = draw(st.sampled_from([pa.int8(), pa.int64(), pa.bool_(), pa.null()]))
    of_b = draw(st.sampled_from([pa.string(), pa.large_string()]))
    of_c = draw(nested_types(depth - 1)) if depth else pa.float32()
    kind = pa.struct([(name, {"a": of_a, "b": of_b, "c": of_c}[name]) for name in fields])
    return kind


WRAPPED = {
    "struct": lambda kind: kind,
    "list": lambda kind: pa.list_(kind),
    "pair": lambda kind: pa.list_(kind, 2),
    "map": lambda kind: pa.map_(pa.string(), kind),
}


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    t = pa.types
    if t.is_null(kind):
        return st.none()
    if t.is_map(kind):
        entry = st.tuples(st.sampled_from("xyz"), values_of(kind.item_type))
        return st.none() | st.lists(entry, max_size=2)
    if t.is_list(kind) or t.is_fixed_size_list(kind):
        least, most = (2, 2) if t.is_fixed_size_list(kind) else (0, 3)
        return st.none() | st.lists(values_of(kind.value_type), min_size=least, max_size=most)
    if t.is_struct(kind):
        fields = {field.name: values_of(field.type) for field in kind}
        return st.none() | st.fixed_dictionaries(fields)
    if t.is_boolean(kind):
        return st.none() | st.booleans()
    if t.is_integer(kind):
        return st.none() | st.integers(-100, 100)
    return st.none() | (st.just(0.5) if t.is_floating(kind) else st.sampled_from(["", "text"]))


def fill(value: Any, kind: pa.DataType) -> Any:
    """The value with null in each field that it lacks: what a table of the whole type has."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {field.name: fill(value.get(field.name), field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(key, fill(item, kind.item_type)) for key, item in value]
    return [fill(one, kind.value_type) for one in value] if pa.types.is_nested(kind) else value


@given(
    st.data(), st.sampled_from(sorted(WRAPPED)), st.lists(nested_types(), min_size=2, max_size=3)
)
def test_files_that_differ_in_fields_have_the_rows_of_the_whole_table(
    data: st.DataObject, wrapping: str, structs: list[pa.DataType]
) -> None:
    kinds = [WRAPPED[wrapping](kind) for kind in structs]
    common = unify(map(canonical, kinds))
    assert common is not None
    for kind in kinds:
        rows = data.draw(st.lists(values_of(kind), max_size=4))
        column = pa.array([None, *rows], kind)
        for part in (column, column[1:]):
            cast = cast_exactly(part, common)
            cast.values.validate(full=True)
            assert cast.values.type == common
            assert cast.changed is None
            assert cast.values.to_pylist() == [fill(row, common) for row in part.to_pylist()]


def test_a_value_of_a_field_without_a_place_is_reported() -> None:
    column = pa.array([{"a": 1, "b": None}, {"a": 1, "b": 2}, None, {"a": 2**60, "b": None}])
    cast = cast_exactly(column, pa.struct([("a", pa.float64())]))
    assert cast.changed is not None
    assert cast.changed.tolist() == [False, True, False, True]
    lists = cast_exactly(pa.array([[2**60 + 1], None, [1, 2], []]), pa.list_(pa.float64()))
    assert lists.changed is not None
    assert lists.changed.tolist() == [True, False, False, False]
