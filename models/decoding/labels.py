"""Decodes labels: 0 for normal, 1 for an anomaly, null for unknown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.decoding.scalars import Bools


class Labels(NamedTuple):
    """A column of labels."""

    values: npt.NDArray[np.float32]  # [rows]: 0, 1, or NaN where there is none
    broken: Bools | None  # [rows]: values that are no label; None if all are


def decode_labels(array: pa.Array, normal: Sequence[str | int] = ()) -> Labels:
    """Decode numbers or booleans or, with the values that are `normal`, texts or numbers.

    Rule: unknown_label, for any value but 0, 1 and null or, with `normal`, for a number that is
    not finite, and for an empty text. Every other value is an anomaly.

    >>> decode_labels(pa.array([0, 1, None, 300])).broken
    array([False, False, False,  True])
    >>> decode_labels(pa.array(["BENIGN", "DDoS", None]), ["BENIGN"]).values
    array([ 0.,  1., nan], dtype=float32)
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    null = np.asarray(array.is_null())
    if normal and not pa.types.is_null(array.type):
        anomalous, broken = _compare(array, normal)
    else:
        if pa.types.is_boolean(array.type) or pa.types.is_null(array.type):
            array = array.cast(pa.uint8())
        numbers = array.cast(pa.float64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
        anomalous, broken = numbers == 1, (numbers != 0) & (numbers != 1)
    broken &= ~null
    values = np.where(null | broken, np.nan, anomalous).astype(np.float32)
    return Labels(values, broken if broken.any() else None)


def _compare(array: pa.Array, normal: Sequence[str | int]) -> tuple[Bools, Bools]:
    """Which values are not normal, and which are no label."""
    t = pa.types
    if any(is_text(array.type) for is_text in (t.is_string, t.is_large_string, t.is_string_view)):
        array = array.cast(pa.large_binary())  # the bytes may be no UTF-8
        known = pa.array([str(value).encode() for value in normal], array.type)
        broken = np.asarray(pc.equal(pc.binary_length(array), 0).fill_null(False))
    else:
        array = array.cast(pa.float64(), safe=False)
        known = pa.array([float(value) for value in normal])
        broken = ~np.asarray(pc.is_finite(array).fill_null(True))
    return ~np.asarray(pc.is_in(array, value_set=known)), broken
