"""Finds columns that a detector must not see: they follow from the answer, or say how a labelled
set was divided and judged."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.decoding.labels import decode_labels

# What the makers of a labelled set add. Real tables have such words in longer names.
_DIVISION = re.compile(r"(data_?)?(split|fold|subset)(_?(id|no|num|name))?")
_MADE = re.compile(
    r"(is|in)_?(train|test|valid|val|validation|holdout|probation)(_?(set|\d+))?"
    r"|difficulty(_?(level|score))?"
)
_PARTS = {"train", "test", "valid", "val", "validation", "dev", "holdout"}
TRAIN = "train"
FEW = 64  # distinct values of such a column
# Rows that show a rule beyond doubt, of normal rows and of anomalies, and of each value.
ENOUGH = 20
PICTURED = {"image", "audio", "video"}


class Answer(NamedTuple):
    """Why a column is no feature."""

    why: str
    kind: bool  # whether it may serve as the kind of an anomaly


def is_division(name: str, values: tuple[object, ...]) -> bool:
    """Whether the values divide the rows of a labelled set, as train and test do.

    >>> is_division("split", ("test", "train")), is_division("split", ("left", "right"))
    (True, False)
    """
    texts = {value.lower() for value in values if isinstance(value, str)}
    named = _DIVISION.fullmatch(name.strip().lower())
    return bool(named and values and len(texts) == len(values) and texts <= _PARTS)


def find_answers(
    table: pa.Table, label: str, normal: tuple[str | int, ...], pictured: bool
) -> dict[str, Answer]:
    """Why columns of a table with a label are no features, by their names.

    `pictured` says whether the rows are images or sounds: then a column whose values each have one
    label is the class that the label was made from. In tables of numbers many honest columns tell
    the label as well (docs/decisions/first-spec.md).
    """
    labels = decode_labels(table[label].combine_chunks(), normal).values
    known = np.isfinite(labels)
    anomalies = labels[known] == 1
    enough = min(anomalies.sum(), (~anomalies).sum()) >= ENOUGH
    found = {}
    for name in dict.fromkeys(table.column_names):
        if name == label or table.column_names.count(name) > 1:
            continue
        column = table[name].combine_chunks()
        if _MADE.fullmatch(name.strip().lower()) and _is_few(column):
            why = "says how the labelled set was made or judged, which no night knows"
            found[name] = Answer(why, kind=False)
        elif enough and (why := next(_tell(column, known, anomalies, pictured), "")):
            found[name] = Answer(why, kind=_is_few(column))
    return found


def _is_few(column: pa.Array) -> bool:
    return not pa.types.is_nested(column.type) and len(column.unique()) <= FEW


def _tell(
    column: pa.Array, known: np.ndarray, anomalies: np.ndarray, pictured: bool
) -> Iterator[str]:
    nulls = np.asarray(column.is_null())[known]
    if (nulls == ~anomalies).all():
        yield "null in exactly the normal rows: an answer, which a detector must not see"
    whole = pa.types.is_integer(column.type) or pa.types.is_string(column.type)
    if pictured and whole and _is_few(column) and not nulls.any():
        codes = np.asarray(pc.dictionary_encode(column).indices)[known]
        rows = np.bincount(codes)
        shares = np.bincount(codes, weights=anomalies) / np.maximum(rows, 1)
        if len(rows) > 2 and rows.min() >= ENOUGH and set(shares.tolist()) <= {0.0, 1.0}:
            yield "each value has one label: the class that the label was made from"
