"""Columns of lists: vectors, series and events, each as one flat array and a length a row.

A list keeps its own length here; the encoder cuts and pads it to the length that it learned.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.decoding.scalars import (
    FLOAT32_MAX,
    Bools,
    Cells,
    Values,
    decode_text,
    find_nulls,
    keep_first_rules,
)

# Numbers of one vector: more is a signal that somebody forgot to make smaller, and its statistics
# of 24 bytes a number would no longer be small.
WIDEST_VECTOR = 65_536
# Numbers of one series whose steps are lists of any length: each null among them stands for as
# many as its neighbours have, so that a small file could ask for all memory. 64 MB as float32.
MOST_NUMBERS = 16_777_216


def decode_vector(array: pa.Array) -> Cells:
    """Numbers of all rows, [all numbers]; rules: wrong_length (of none, or above WIDEST_VECTOR),
    not_finite (null too), overflow (of float32)."""
    lengths = find_lengths(array)
    numbers = _numbers(array.flatten())
    null = find_nulls(array)
    odd = (lengths == 0) | (lengths > WIDEST_VECTOR)
    rules = {
        "wrong_length": odd if null is None else odd & ~null,
        "not_finite": find_rows_with(~np.isfinite(numbers), lengths),
        "overflow": find_rows_with(np.abs(numbers) > FLOAT32_MAX, lengths),
    }
    return Cells((), null, keep_first_rules(rules), signal=numbers, lengths=lengths)


def decode_steps(array: pa.Array) -> Cells:
    """Steps of all rows, [all steps, channels], NaN where a number is missing; rules: not_finite
    (infinity), overflow. Steps that are lists of any length: see `_decode_ragged`."""
    lengths = find_lengths(array)
    flat = array.flatten()
    if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type):
        return _decode_ragged(array, flat)
    steps = _steps(flat) if pa.types.is_fixed_size_list(flat.type) else _numbers(flat)[:, None]
    rules = {
        "not_finite": find_rows_with(np.isinf(steps).any(1), lengths),
        "overflow": find_rows_with((np.abs(steps) > FLOAT32_MAX).any(1), lengths),
    }
    return Cells((), find_nulls(array), keep_first_rules(rules), signal=steps, lengths=lengths)


def _decode_ragged(array: pa.Array, steps: pa.Array) -> Cells:
    """Numbers of all rows, flat, and how many a step of each row has; a step that is null is NaN.

    Rules: wrong_length (steps of one row that differ in length, or have none; above MOST_NUMBERS),
    not_finite (infinity), overflow. Rows of another width than training saw are told apart later:
    here nobody knows it.
    """
    lengths, sizes = find_lengths(array), find_lengths(steps)
    row = np.repeat(np.arange(len(lengths)), lengths)
    widths = np.zeros(len(lengths), np.int64)
    np.maximum.at(widths, row, sizes)
    missing = np.asarray(steps.is_null())
    odd = find_rows_with((sizes != widths[row]) & ~missing, lengths)
    odd |= (lengths > 0) & (widths == 0) | (lengths * widths > MOST_NUMBERS)
    widths[odd] = 0
    whole = ~missing & ~odd[row]
    found = _numbers(steps.flatten())
    numbers = np.full(int((lengths * widths).sum()), np.nan, found.dtype)
    numbers[np.repeat(whole, widths[row])] = found[np.repeat(whole, sizes)]
    rules = {
        "wrong_length": odd,
        "not_finite": find_rows_with(np.isinf(numbers), lengths * widths),
        "overflow": find_rows_with(np.abs(numbers) > FLOAT32_MAX, lengths * widths),
    }
    problems = keep_first_rules(rules)
    return Cells((), find_nulls(array), problems, signal=numbers, lengths=lengths, widths=widths)


def select_steps(channels: int, cells: Cells) -> tuple[Values, npt.NDArray[np.int64], Bools]:
    """Steps [steps, channels] of the rows that have such, how many of each row, and which do."""
    assert cells.signal is not None
    assert cells.lengths is not None
    if cells.widths is None:
        return cells.signal, cells.lengths, np.ones(len(cells.lengths), bool)
    fits = (cells.widths == channels) | (cells.lengths == 0)
    kept = np.repeat(fits, cells.lengths * cells.widths)
    return cells.signal[kept].reshape(-1, channels), np.where(fits, cells.lengths, 0), fits


def decode_events(array: pa.Array) -> Cells:
    """The texts of all events, in order; rule: invalid_utf8."""
    lengths = find_lengths(array)
    texts, _, problems = decode_text(array.flatten())
    rules = {rule: find_rows_with(events, lengths) for events, rule in problems}
    return Cells((), find_nulls(array), keep_first_rules(rules), texts, lengths=lengths)


def find_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """How many values each row has in `array.flatten()`: none where it is null."""
    counted = pc.list_value_length(array).fill_null(0)
    return np.asarray(counted).astype(np.int64)


def find_rows_with(values: Any, lengths: npt.NDArray[np.int64]) -> Bools:
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
