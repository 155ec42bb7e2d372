"""Decodes columns of single values, with Arrow and numpy over whole columns."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import (
    Numeric,
)

Values = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]

FLOAT32_MAX = float(np.finfo(np.float32).max)
PORTS = 65_536
_ALWAYS = 256  # a dictionary up to this size is always decoded whole
PORT_CLASSES = (  # RFC 6335, section 6
    ("well-known", 0, 1_023),
    ("registered", 1_024, 49_151),
    ("ephemeral", 49_152, 65_535),
)


class Problem(NamedTuple):
    """The reason why a row cannot be scored."""

    row: int  # index in the batch
    column: str
    # not_finite, out_of_range, unparsable, overflow, wrong_length, unexpected_null, invalid_utf8
    rule: str


class Texts(NamedTuple):
    """A column of text as indices into its distinct texts."""

    indices: npt.NDArray[np.int32]  # -1 is null
    texts: pa.Array  # string or large_string; null if the bytes are not UTF-8


class Cells(NamedTuple):
    """The decoded cells of one column. A cell that is null or has a problem holds zeros."""

    inputs: tuple[Values, ...]  # one array per raw input, [rows] of any dtype
    null: Bools | None  # [rows]; None if there are no nulls
    problems: tuple[tuple[Bools, str], ...]  # mask [rows] and the rule that these rows break
    text: Texts | None = None  # for columns with a vocabulary
    # Numbers of a signal: [rows, …] of any dtype; with `lengths`, of all rows one after the other.
    signal: Values | None = None
    lengths: npt.NDArray[np.int64] | None = None  # [rows]: steps of `signal`, or texts
    # [rows]: numbers per step, if the type does not give them; `signal` is flat then.
    widths: npt.NDArray[np.int64] | None = None
    tokens: npt.NDArray[np.int32] | None = None  # [rows, length], if no vocabulary is learned


def find_nulls(array: pa.Array) -> Bools | None:
    """The mask of the rows without a value; None if all rows have one."""
    return np.asarray(array.is_null()) if array.null_count else None


def apply_rules(values: Values, null: Bools | None, rules: dict[str, Bools]) -> Cells:
    """Cells of one input. A row that breaks a rule holds 0; its first broken rule counts."""
    if null is not None:
        rules = {rule: rows & ~null for rule, rows in rules.items()}
    problems = keep_first_rules(rules)
    broken = [rows for rows, _ in problems] + ([] if null is None else [null])
    if broken:
        values = np.where(np.logical_or.reduce(broken), 0, values)
    return Cells((values,), null, problems)


def keep_first_rules(rules: dict[str, Bools]) -> tuple[tuple[Bools, str], ...]:
    """The broken rules, each with the rows that break no earlier rule."""
    problems: list[tuple[Bools, str]] = []
    for rule, rows in rules.items():
        for earlier, _ in problems:
            rows = rows & ~earlier
        if rows.any():
            problems.append((rows, rule))
    return tuple(problems)


def decode_number(array: pa.Array, column: Numeric) -> Cells:
    """Decode to float32 or float64. Rules: not_finite, overflow (of float32), out_of_range."""
    null = find_nulls(array)
    low = -FLOAT32_MAX if column.low is None else column.low
    high = FLOAT32_MAX if column.high is None else column.high
    if pa.types.is_float32(array.type) and null is None:
        # The common case needs no copy: a batch of 16 columns was decoded 5 times as fast.
        small = array.to_numpy()
        if _lie_within(small, low, high):
            return Cells((small,), None, ())
    whole = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    # safe=False: integers above 2**53 are rounded.
    filled = whole.cast(pa.float64(), safe=False).fill_null(0.0)
    values = filled.to_numpy(zero_copy_only=False)
    if _lie_within(values, low, high):
        return Cells((values,), null, ())
    rules = {
        "not_finite": ~np.isfinite(values),
        "overflow": np.abs(values) > FLOAT32_MAX,
        "out_of_range": (values < low) | (values > high),
    }
    return apply_rules(values, null, rules)


def _lie_within(values: Values, low: float, high: float) -> bool:
    # One pass each for the least and the largest value; NaN makes both comparisons false.
    return not len(values) or bool(
        float(values.min()) >= max(low, -FLOAT32_MAX)
        and float(values.max()) <= min(high, FLOAT32_MAX)
    )


def decode_boolean(array: pa.Array) -> Cells:
    """Decode to 0 and 1. Rule: unparsable (another number)."""
    null = find_nulls(array)
    if pa.types.is_boolean(array.type):
        return Cells((np.asarray(array.fill_null(False)),), null, ())
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    return apply_rules(values, null, {"unparsable": (values != 0) & (values != 1)})


def decode_port(array: pa.Array) -> Cells:
    """Decode to one flag per class of ports, and the port as text.

    Rules: not_finite, unparsable (a fraction), out_of_range.
    """
    null = find_nulls(array)
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    rules: dict[str, Bools] = {}
    if values.dtype.kind == "f":
        rules["not_finite"] = ~np.isfinite(values)
        rules["unparsable"] = values != np.floor(values)
    rules["out_of_range"] = (values < 0) | (values >= PORTS)
    settled = apply_rules(values, null, rules)
    ports = settled.inputs[0].astype(np.uint16)
    flags = [(ports >= low) & (ports <= high) for _, low, high in PORT_CLASSES]
    encoded = pa.array(ports, mask=null).dictionary_encode()
    return Cells(tuple(flags), null, settled.problems, _read_dictionary(encoded))


def decode_category(array: pa.Array) -> Cells:
    """Decode to text. Integers and booleans are cast by Arrow: "443", "true".

    Floats are taken as integers. Rule: unparsable, for a fraction or one beyond 2^53.
    """
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_floating(kind):
        null = find_nulls(array)
        floats = array.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            wrong = ~((floats == np.floor(floats)) & (np.abs(floats) <= 2**53))
        cells = apply_rules(floats, null, {"unparsable": wrong})
        whole = pa.array(cells.inputs[0].astype(np.int64), mask=null)
        return Cells((), null, cells.problems, decode_text(whole)[0])
    text, null, problems = decode_text(array)
    return Cells((), null, problems, text)


def decode_text(array: pa.Array) -> tuple[Texts, Bools | None, tuple[tuple[Bools, str], ...]]:
    """Decode to the distinct texts, their nulls and problems. Rule: invalid_utf8.

    Parquet readers do not check UTF-8.
    """
    if pa.types.is_dictionary(array.type) and len(array.dictionary) > max(len(array), _ALWAYS):
        # The batches of a file may share a large dictionary: keep only the entries of this batch.
        array = array.dictionary_decode()
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    indices, texts = _read_dictionary(encoded)
    wrong = find_invalid_utf8(texts)
    problems: tuple[tuple[Bools, str], ...] = ()
    if wrong is not None:
        texts = pc.if_else(pa.array(~wrong), texts, pa.scalar(None, texts.type))
        broken = np.append(wrong, False)[indices]
        if broken.any():
            problems = ((broken, "invalid_utf8"),)
    null = indices < 0
    return Texts(indices, texts), null if null.any() else None, problems


def _read_dictionary(encoded: pa.DictionaryArray) -> Texts:
    texts = encoded.dictionary
    indices = np.asarray(encoded.indices.cast(pa.int32()).fill_null(-1))
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        view = pa.types.is_string_view(texts.type)
        texts = texts.cast(pa.large_string() if view else pa.string())
    if texts.null_count:  # a dictionary can hold null as a value
        indices = np.where(np.append(np.asarray(texts.is_null()), True)[indices], -1, indices)
    return Texts(indices.astype(np.int32, copy=False), texts)


def find_invalid_utf8(texts: pa.Array) -> Bools | None:
    """The mask of the rows of a string or large_string array that are not UTF-8, or None."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raw = texts.cast(pa.large_binary() if pa.types.is_large_string(texts.type) else pa.binary())
        return np.array([value is not None and not _is_utf8(value) for value in raw.to_pylist()])
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
