"""Rules for the cells of columns that are read for another purpose than a feature.

The rules of features are in `models.decoding`. Rules here: invalid_utf8; unparsable and
out_of_range for times; unknown_label; inexact, for a value that the output's type would change.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cluster.lake.output.schemas import lake_type
from cluster.lake.types.casting import cast_exactly
from models.columns import Roles
from models.decoding.labels import decode_labels
from models.decoding.scalars import Bools, find_invalid_utf8
from models.decoding.times import decode_times


def find_broken(name: str, column: pa.Array, roles: Roles) -> Iterator[tuple[Bools, str]]:
    """The rows of the column that break a rule, a mask [rows], with the rule."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    unreadable = _find_unreadable(column)
    if unreadable is not None:
        yield unreadable, "invalid_utf8"
    if name == roles.time:
        times = decode_times(column, roles.time_unit)
        if times.broken is not None and times.rule != "invalid_utf8":
            yield times.broken, times.rule
    if name == roles.label:
        labels = decode_labels(column, roles.normal)
        if labels.broken is not None:
            yield labels.broken, "unknown_label"
    if name in roles.flagged and name not in roles.sensitive and may_change(column.type):
        changed = cast_exactly(column, lake_type(column.type)).changed
        if changed is not None:
            yield changed, "inexact"


def _find_unreadable(column: pa.Array) -> Bools | None:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return find_invalid_utf8(column)
    if not pa.types.is_nested(kind) or _is_valid(column):
        return None
    return np.array([not _is_valid(column[row : row + 1]) for row in range(len(column))])


def _is_valid(column: pa.Array) -> bool:
    try:
        # A slice's children keep all values, so only a copy of it can be checked.
        pa.concat_arrays([column, column[:0]]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def may_change(kind: pa.DataType) -> bool:
    """Whether the output's type may not hold each value: of all types, only other times."""
    if pa.types.is_nested(kind):
        return any(may_change(kind.field(i).type) for i in range(kind.num_fields))
    return bool(pa.types.is_timestamp(kind) and kind.unit != "us")
