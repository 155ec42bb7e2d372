"""List views become lists with the same values, at any depth."""

from typing import Any

import pyarrow as pa
import pytest

from cluster.lake.input.arrow_types import plain_type, to_type

WHOLE, TEXT = pa.int64(), pa.string()


@pytest.mark.parametrize(
    ("kind", "value", "plain"),
    [
        (pa.list_view(WHOLE), [1, None], pa.list_(WHOLE)),
        (pa.large_list_view(TEXT), ["a", None], pa.list_(TEXT)),
        (pa.list_view(pa.list_view(WHOLE)), [[1], [], None], pa.list_(pa.list_(WHOLE))),
        (pa.list_(pa.list_view(WHOLE)), [[1, 2]], pa.list_(pa.list_(WHOLE))),
        (
            pa.struct([("a", pa.list_view(WHOLE))]),
            {"a": [1]},
            pa.struct([("a", pa.list_(WHOLE))]),
        ),
    ],
)
def test_a_list_view_is_read_as_a_list(kind: pa.DataType, value: Any, plain: pa.DataType) -> None:
    column = pa.array([value, None, value, value], kind)
    assert plain_type(kind) == plain
    for part in (column, column[1:3], column[:0]):
        values, changed = to_type(part, plain)
        values.validate(full=True)
        assert (values.to_pylist(), changed) == (part.to_pylist(), None)
