"""Columns of lists: vectors, series and events, each as one flat array and a length a row.

A list keeps its own length here; the encoder cuts and pads it to the length that it learned.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.cells import FLOAT32_MAX, Bools, Cells, Values, decode_text, first_rules, nulls

# Numbers of one vector: more is a signal that somebody forgot to make smaller, and its statistics
# of 24 bytes a number would no longer be small.
WIDEST_VECTOR = 65_536


def decode_vector(array: pa.Array) -> Cells:
    """Numbers of all rows, [all numbers]; rules: wrong_length (of none, or above WIDEST_VECTOR),
    not_finite (null too), overflow (of float32)."""
    lengths = lengths_of(array)
    numbers = _numbers(array.flatten())
    null = nulls(array)
    odd = (lengths == 0) | (lengths > WIDEST_VECTOR)
    rules = {
        "wrong_length": odd if null is None else odd & ~null,
        "not_finite": rows_with(~np.isfinite(numbers), lengths),
        "overflow": rows_with(np.abs(numbers) > FLOAT32_MAX, lengths),
    }
    return Cells((), null, first_rules(rules), signal=numbers, lengths=lengths)


def decode_steps(array: pa.Array) -> Cells:
    """Steps of all rows, [all steps, channels], NaN where a number is missing; rules: not_finite
    (infinity), overflow."""
    lengths = lengths_of(array)
    flat = array.flatten()
    steps = _steps(flat) if pa.types.is_fixed_size_list(flat.type) else _numbers(flat)[:, None]
    rules = {
        "not_finite": rows_with(np.isinf(steps).any(1), lengths),
        "overflow": rows_with((np.abs(steps) > FLOAT32_MAX).any(1), lengths),
    }
    return Cells((), nulls(array), first_rules(rules), signal=steps, lengths=lengths)


def decode_events(array: pa.Array) -> Cells:
    """The texts of all events, in order; rule: invalid_utf8."""
    lengths = lengths_of(array)
    texts, _, problems = decode_text(array.flatten())
    rules = {rule: rows_with(events, lengths) for events, rule in problems}
    return Cells((), nulls(array), first_rules(rules), texts, lengths=lengths)


def lengths_of(array: pa.Array) -> npt.NDArray[np.int64]:
    """How many values each row has in `array.flatten()`: none where it is null."""
    counted = pc.list_value_length(array).fill_null(0)
    return np.asarray(counted).astype(np.int64)


def rows_with(values: Any, lengths: npt.NDArray[np.int64]) -> Bools:
    """Rows [rows] that have one of these values [all values]."""
    if not values.any():
        return np.zeros(len(lengths), bool)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(rows[values], minlength=len(lengths)) > 0


def _steps(flat: pa.FixedSizeListArray) -> Values:
    """[steps, channels]; a step that is null as a whole is NaN in all channels."""
    width = flat.type.list_size
    numbers = _numbers(flat.flatten()).reshape(-1, width)
    if not flat.null_count:
        return numbers
    steps = np.full((len(flat), width), np.nan, numbers.dtype)
    steps[np.asarray(flat.is_valid())] = numbers
    return steps


def _numbers(flat: pa.Array) -> Values:
    """float32 where they are, else float64; NaN for null."""
    if not pa.types.is_float32(flat.type):
        flat = flat.cast(pa.float64(), safe=False)
    numbers: Values = flat.to_numpy(zero_copy_only=False)
    return numbers
