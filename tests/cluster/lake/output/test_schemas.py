"""The types of carried columns: every value of the input has a place in the table."""

from datetime import datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from deltalake import Schema

from cluster.lake.output.schemas import adopt_types, conform_columns, flag_schema, lake_type
from models.columns import Roles
from models.refusal import SchemaMismatch

OPEN_END = datetime(9999, 12, 31)
CARRIED: list[tuple[pa.Array, list[Any]]] = [
    (pa.array([2**64 - 1], pa.uint64()), [Decimal(2**64 - 1)]),
    (pa.array([2**32 - 1], pa.uint32()), [2**32 - 1]),
    (pa.array([Decimal(10**37 + 1)], pa.decimal128(38, 0)), [Decimal(10**37 + 1)]),
    (pa.array([Decimal("1.50")], pa.decimal256(30, 2)), [Decimal("1.50")]),
    (pa.array([Decimal(10**59 + 1)], pa.decimal256(60, 0)), [str(10**59 + 1)]),
    (pa.array([b"\x00\xff"], pa.binary(2)), [b"\x00\xff"]),
    (pa.array(["a"], pa.string_view()), ["a"]),
    (pa.array(["a"]).dictionary_encode(), ["a"]),
    (pa.array([0.5], pa.float16()), [0.5]),
    (pa.array([time(1, 2, 3, 4)], pa.time64("us")), ["01:02:03.000004"]),
    (
        pa.array([{"a": [2**64 - 1]}], pa.struct([("a", pa.list_(pa.uint64()))])),
        [{"a": [2**64 - 1]}],
    ),
    (pa.array([[b"ab", None]], pa.list_(pa.binary(2), 2)), [[b"ab", None]]),
    (pa.array([[("k", 255)]], pa.map_(pa.large_string(), pa.uint8())), [[("k", 255)]]),
]


@pytest.mark.parametrize(("column", "values"), CARRIED)
def test_a_carried_value_keeps_each_of_its_bits(column: pa.Array, values: list[Any]) -> None:
    schema = flag_schema(pa.schema([("x", column.type)]), Roles(keep=("x",)))
    Schema.from_arrow(schema)  # Delta has the types
    (found,) = conform_columns(pa.table({"x": column}), schema, ("x",))
    assert found.to_pylist() == values


def test_an_open_end_stays_and_a_uuid_is_still_known_as_one() -> None:
    ends = pa.array([OPEN_END], pa.timestamp("ms"))
    schema = pa.schema(
        [("end", ends.type), pa.field("u", pa.binary(16), metadata={"type": "uuid"})]
    )
    flags = flag_schema(schema, Roles(keep=("end", "u")))
    (found,) = conform_columns(pa.table({"end": ends}), flags, ("end",))
    assert found.cast(pa.timestamp("us")).to_pylist() == [OPEN_END]
    assert flags.field("u").metadata == {b"type": b"uuid"}


@pytest.mark.parametrize("kind", [pa.duration("us"), pa.month_day_nano_interval(), pa.null()])
def test_a_type_without_a_place_in_delta_is_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'x': expected a type that Delta can hold"):
        flag_schema(pa.schema([("x", kind)]), Roles(keep=("x",)))


@pytest.mark.parametrize(
    ("tonight", "table", "read_as"),
    [
        (pa.int64(), pa.int32(), pa.int32()),
        (pa.float64(), pa.int64(), pa.int64()),  # pandas, once a null appears
        (pa.null(), pa.string(), pa.string()),
        (pa.decimal128(12, 2), pa.decimal128(10, 2), pa.decimal128(10, 2)),
        (pa.uint64(), pa.decimal128(20, 0), pa.uint64()),
        (pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ns")),
        (pa.string(), pa.int64(), pa.string()),  # the table refuses it
    ],
)
def test_a_day_takes_the_types_of_the_table_within_a_family(
    tonight: pa.DataType, table: pa.DataType, read_as: pa.DataType
) -> None:
    roles = Roles(keep=("x",))
    schema = adopt_types(pa.schema([("x", tonight)]), roles, pa.schema([("x", table)]))
    assert schema.field("x").type == read_as
    assert lake_type(read_as) == table or read_as == pa.string()


def test_a_struct_adopts_fields_that_the_table_has_and_keeps_those_that_it_lacks() -> None:
    roles = Roles(keep=("x",))
    few, more = pa.struct([("a", pa.int64())]), pa.struct([("a", pa.int64()), ("b", pa.string())])
    for one, other in ((few, more), (pa.list_(few), pa.list_(more))):
        adopted = adopt_types(pa.schema([("x", one)]), roles, pa.schema([("x", other)]))
        assert adopted.field("x").type == other
        kept = adopt_types(pa.schema([("x", other)]), roles, pa.schema([("x", one)]))
        assert kept.field("x").type == other, "the table refuses it; no value is dropped"
