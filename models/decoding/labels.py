"""Decodes labels: 0 for normal, 1 for an anomaly, null for unknown."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.decoding.scalars import Bools


class Labels(NamedTuple):
    """A column of labels."""

    values: npt.NDArray[np.float32]  # [rows]: 0, 1, or NaN where there is none
    broken: Bools | None  # [rows]: values that are no label; None if all are


def decode_labels(array: pa.Array) -> Labels:
    """Decode numbers or booleans. Rule: unknown_label, for any value but 0, 1 and null.

    >>> decode_labels(pa.array([0, 1, None, 300])).broken
    array([False, False, False,  True])
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_boolean(array.type) or pa.types.is_null(array.type):
        array = array.cast(pa.uint8())
    null = np.asarray(array.is_null())
    numbers = array.cast(pa.float64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
    broken = (numbers != 0) & (numbers != 1)
    values = np.where(null | broken, np.nan, numbers).astype(np.float32)
    return Labels(values, broken if broken.any() else None)
