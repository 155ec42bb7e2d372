"""Values that Python has no type for are text, and the others are as they were."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from cluster.lake.types.python_values import has_far_times, to_python

FAR = pa.array([2**63 - 1, 0, None]).cast(pa.timestamp("us", "UTC"))
TEXT, FIRST = f"{2**63 - 1} us since 1970", datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (FAR, [TEXT, FIRST, None]),
        (
            pa.array([-(2**31), 0], pa.int32()).cast(pa.date32()),
            [f"{-(2**31)} days since 1970", date(1970, 1, 1)],
        ),
        (
            pa.StructArray.from_arrays([FAR, FAR], ["a", "b"]).slice(0, 2),
            [{"a": TEXT, "b": TEXT}, {"a": FIRST, "b": FIRST}],
        ),
        (pa.ListArray.from_arrays([0, 2, 2], FAR), [[TEXT, FIRST], []]),
        (
            pa.MapArray.from_arrays([0, 1, 2], ["k", "l"], FAR.slice(0, 2)),
            [[("k", TEXT)], [("l", FIRST)]],
        ),
        (pa.array([1, None]), [1, None]),
    ],
)
def test_a_time_of_no_calendar_is_text_at_any_depth(column: pa.Array, values: list[object]) -> None:
    assert to_python(column) == values
    assert to_python(pa.chunked_array([column, column])) == values * 2
    assert has_far_times(pa.chunked_array([column])) == (
        "us since" in str(values) or "days since" in str(values)
    )
