"""Labels of 0 and 1, and labels whose normal values are declared."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decoding.labels import decode_labels

NAN = float("nan")


@pytest.mark.parametrize(
    ("array", "normal", "values", "broken"),
    [
        (pa.array([0, 1, None]), (), [0, 1, NAN], None),
        (pa.array([True, False]), (), [1, 0], None),
        (pa.array([0.0, NAN, 300.0]), (), [0, NAN, NAN], [False, True, True]),
        (pa.nulls(2), ("a",), [NAN, NAN], None),
        (pa.array(["0", "1", None]), ("0",), [0, 1, NAN], None),
        (pa.array(["ok", "", "bad"]), ("ok", "fine"), [0, NAN, 1], [False, True, False]),
        (pa.array(["ok", "bad"], pa.large_string()), ("ok",), [0, 1], None),
        (pa.array(["ok", "bad"], pa.string_view()), ("ok",), [0, 1], None),
        (pa.array(["ok", "bad", None]).dictionary_encode(), ("ok",), [0, 1, NAN], None),
        (pa.array([3, 4, None], pa.uint64()), (3, 5), [0, 1, NAN], None),
        (pa.array([3.0, NAN, None]), (3,), [0, NAN, NAN], [False, True, False]),
    ],
)
def test_labels_are_decoded(
    array: pa.Array, normal: tuple[str | int, ...], values: list[float], broken: list[bool] | None
) -> None:
    found = decode_labels(array, normal)
    np.testing.assert_array_equal(found.values, np.array(values, np.float32))
    assert (None if found.broken is None else found.broken.tolist()) == broken


@given(st.lists(st.none() | st.text(min_size=1, max_size=3)), st.lists(st.text(), min_size=1))
def test_each_text_is_normal_an_anomaly_or_unknown(
    texts: list[str | None], normal: list[str]
) -> None:
    found = decode_labels(pa.array(texts, pa.string()), normal)
    wanted = [NAN if text is None else float(text not in normal) for text in texts]
    np.testing.assert_array_equal(found.values, np.array(wanted, np.float32))
    assert found.broken is None
