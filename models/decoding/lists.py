"""Decodes lists: vectors, series and events, each as one flat array and a length per row.

A list keeps its length here. The encoder cuts and pads it to the learned length.
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

# Most numbers of a vector. A longer one is probably a signal that was meant to be made smaller, and
# its statistics take 24 bytes per number.
WIDEST_VECTOR = 65_536
# Most numbers of a series whose steps are lists of any length: 64 MB as float32. A null step
# becomes as many numbers as its neighbours have, so a small file could ask for all memory.
MOST_NUMBERS = 16_777_216


def decode_vector(array: pa.Array) -> Cells:
    """Decode to the numbers of all rows, flat.

    Rules: wrong_length (empty or above WIDEST_VECTOR), not_finite (also for null), overflow (of
    float32).
    """
    lengths = find_lengths(array)
    numbers = _to_numbers(array.flatten())
    null = find_nulls(array)
    odd = (lengths == 0) | (lengths > WIDEST_VECTOR)
    rules = {
        "wrong_length": odd if null is None else odd & ~null,
        "not_finite": find_rows_with(~np.isfinite(numbers), lengths),
        "overflow": find_rows_with(np.abs(numbers) > FLOAT32_MAX, lengths),
    }
    return Cells((), null, keep_first_rules(rules), signal=numbers, lengths=lengths)


def decode_steps(array: pa.Array) -> Cells:
    """Decode to the steps of all rows, [all steps, channels], with NaN for a missing number.

    Rules: not_finite (infinity), overflow. Steps that are lists of any length are flat instead: see
    `_decode_ragged`.
    """
    lengths = find_lengths(array)
    flat = array.flatten()
    if pa.types.is_list(flat.type) or pa.types.is_large_list(flat.type):
        return _decode_ragged(array, flat)
    steps = (
        _to_steps(flat) if pa.types.is_fixed_size_list(flat.type) else _to_numbers(flat)[:, None]
    )
    rules = {
        "not_finite": find_rows_with(np.isinf(steps).any(1), lengths),
        "overflow": find_rows_with((np.abs(steps) > FLOAT32_MAX).any(1), lengths),
    }
    return Cells((), find_nulls(array), keep_first_rules(rules), signal=steps, lengths=lengths)


def _decode_ragged(array: pa.Array, steps: pa.Array) -> Cells:
    """Decode to the numbers of all rows, flat, and the numbers per step of each row.

    A null step becomes NaN. Rules: wrong_length (the steps of a row are empty or differ in length,
    or there are more than MOST_NUMBERS), not_finite (infinity), overflow. Rows whose width differs
    from training are found later, because the width of training is not known here.
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
    found = _to_numbers(steps.flatten())
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
    """The rows whose steps have this number of channels.

    Returns their steps, [steps, channels], the steps of each row, [rows], and the mask of the rows.
    """
    assert cells.signal is not None
    assert cells.lengths is not None
    if cells.widths is None:
        return cells.signal, cells.lengths, np.ones(len(cells.lengths), bool)
    fits = (cells.widths == channels) | (cells.lengths == 0)
    kept = np.repeat(fits, cells.lengths * cells.widths)
    return cells.signal[kept].reshape(-1, channels), np.where(fits, cells.lengths, 0), fits


def decode_events(array: pa.Array) -> Cells:
    """Decode to the texts of all events, in order. Rule: invalid_utf8."""
    lengths = find_lengths(array)
    texts, _, problems = decode_text(array.flatten())
    rules = {rule: find_rows_with(events, lengths) for events, rule in problems}
    return Cells((), find_nulls(array), keep_first_rules(rules), texts, lengths=lengths)


def find_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """The number of values that each row has in `array.flatten()`; 0 for null."""
    counted = pc.list_value_length(array).fill_null(0)
    return np.asarray(counted).astype(np.int64)


def find_rows_with(values: Any, lengths: npt.NDArray[np.int64]) -> Bools:
    """Which rows have a value that is true in the mask `values`, [all values]."""
    if not values.any():
        return np.zeros(len(lengths), bool)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(rows[values], minlength=len(lengths)) > 0


def _to_steps(flat: pa.FixedSizeListArray) -> Values:
    """The steps, [steps, channels]. A null step is NaN in all channels."""
    width = flat.type.list_size
    numbers = _to_numbers(flat.flatten()).reshape(-1, width)
    if not flat.null_count:
        return numbers
    steps = np.full((len(flat), width), np.nan, numbers.dtype)
    steps[np.asarray(flat.is_valid())] = numbers
    return steps


def _to_numbers(flat: pa.Array) -> Values:
    """The numbers as float32 if they are, else as float64; NaN for null."""
    if not pa.types.is_float32(flat.type):
        flat = flat.cast(pa.float64(), safe=False)
    numbers: Values = flat.to_numpy(zero_copy_only=False)
    return numbers
