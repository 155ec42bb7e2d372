"""One column of a batch, decoded: the path that fitting, training and scoring share.

Everything here is Arrow or numpy over whole columns; Python sees single values only where they
are wrong, or odd (IPv6).
"""

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
PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday, counted from Monday = 0
PORTS = 65_536
_ALWAYS = 256  # entries of a dictionary that are looked up whole
PORT_CLASSES = (  # RFC 6335, section 6
    ("well-known", 0, 1_023),
    ("registered", 1_024, 49_151),
    ("ephemeral", 49_152, 65_535),
)


class Problem(NamedTuple):
    """Why a row cannot be scored."""

    row: int  # index in the batch
    column: str
    # not_finite, out_of_range, unparsable, overflow, wrong_length, unexpected_null, invalid_utf8
    rule: str


class Texts(NamedTuple):
    """A column as indices into the texts that occur in it."""

    indices: npt.NDArray[np.int32]  # -1 is null
    texts: pa.Array  # string or large_string; null where the bytes are no UTF-8


class Cells(NamedTuple):
    """The decoded cells of one column. Cells that are null, or have a problem, hold zeros."""

    inputs: tuple[Values, ...]  # one array a raw input, any dtype, [rows]
    null: Bools | None  # [rows]; None for no nulls
    problems: tuple[tuple[Bools, str], ...]  # rows [rows] and the rule that they break
    text: Texts | None = None  # for columns with a vocabulary
    # Numbers of a signal: [rows, …] of any dtype; with `lengths`, those of all rows in one piece.
    signal: Values | None = None
    lengths: npt.NDArray[np.int64] | None = None  # [rows]: steps of `signal`, or texts, of each
    # [rows]: numbers a step, where the type does not say; `signal` then is flat, row by row.
    widths: npt.NDArray[np.int64] | None = None
    tokens: npt.NDArray[np.int32] | None = None  # [rows, length], where no vocabulary is learned


def find_nulls(array: pa.Array) -> Bools | None:
    """Rows [rows] without a value; None where all have one."""
    return np.asarray(array.is_null()) if array.null_count else None


def _settle(values: Values, null: Bools | None, rules: dict[str, Bools]) -> Cells:
    """Cells of one input, with zeros where a rule is broken; the first broken rule counts."""
    if null is not None:
        rules = {rule: rows & ~null for rule, rows in rules.items()}
    problems = keep_first_rules(rules)
    broken = [rows for rows, _ in problems] + ([] if null is None else [null])
    if broken:
        values = np.where(np.logical_or.reduce(broken), 0, values)
    return Cells((values,), null, problems)


def keep_first_rules(rules: dict[str, Bools]) -> tuple[tuple[Bools, str], ...]:
    """The rules that are broken, each with the rows that break no earlier one."""
    problems: list[tuple[Bools, str]] = []
    for rule, rows in rules.items():
        for earlier, _ in problems:
            rows = rows & ~earlier
        if rows.any():
            problems.append((rows, rule))
    return tuple(problems)


def decode_number(array: pa.Array, column: Numeric) -> Cells:
    """Values as they are, or float64; rules: not_finite, overflow (of float32), out_of_range."""
    null = find_nulls(array)
    low = -FLOAT32_MAX if column.low is None else column.low
    high = FLOAT32_MAX if column.high is None else column.high
    if pa.types.is_float32(array.type) and null is None:
        # The common case without a copy: a 16-column batch was decoded 5 times as fast.
        small = array.to_numpy()
        if _within(small, low, high):
            return Cells((small,), None, ())
    whole = array.cast(pa.uint8()) if pa.types.is_boolean(array.type) else array
    # safe=False: integers above 2**53 round, as they would in any float.
    filled = whole.cast(pa.float64(), safe=False).fill_null(0.0)
    values = filled.to_numpy(zero_copy_only=False)
    if _within(values, low, high):
        return Cells((values,), null, ())
    rules = {
        "not_finite": ~np.isfinite(values),
        "overflow": np.abs(values) > FLOAT32_MAX,
        "out_of_range": (values < low) | (values > high),
    }
    return _settle(values, null, rules)


def _within(values: Values, low: float, high: float) -> bool:
    # NaN makes both comparisons false: one pass each for the smallest and the largest.
    return not len(values) or bool(
        float(values.min()) >= max(low, -FLOAT32_MAX)
        and float(values.max()) <= min(high, FLOAT32_MAX)
    )


def decode_boolean(array: pa.Array) -> Cells:
    """Zeros and ones; other integers are unparsable."""
    null = find_nulls(array)
    if pa.types.is_boolean(array.type):
        return Cells((np.asarray(array.fill_null(False)),), null, ())
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    return _settle(values, null, {"unparsable": (values != 0) & (values != 1)})


def decode_port(array: pa.Array) -> Cells:
    """One flag a class of ports, and the port as text; rules: not_finite, unparsable (a fraction),
    out_of_range."""
    null = find_nulls(array)
    values = array.fill_null(0).to_numpy(zero_copy_only=False)
    rules: dict[str, Bools] = {}
    if values.dtype.kind == "f":
        rules["not_finite"] = ~np.isfinite(values)
        rules["unparsable"] = values != np.floor(values)
    rules["out_of_range"] = (values < 0) | (values >= PORTS)
    settled = _settle(values, null, rules)
    ports = settled.inputs[0].astype(np.uint16)
    flags = [(ports >= low) & (ports <= high) for _, low, high in PORT_CLASSES]
    encoded = pa.array(ports, mask=null).dictionary_encode()
    return Cells(tuple(flags), null, settled.problems, _text(encoded))


def decode_timestamp(array: pa.Array) -> Cells:
    """Sine and cosine of the hour of the day (not for dates) and of the day of the week, in UTC.

    Arrow keeps a timestamp with a zone as its instant in UTC, so no conversion is needed.
    """
    null = find_nulls(array)
    if pa.types.is_date32(array.type):
        days = np.asarray(array.cast(pa.int32()).fill_null(0)).astype(np.int64)
        return Cells(_weekday(days), null, ())
    instants = np.asarray(array.cast(pa.int64()).fill_null(0))
    per_day = PER_DAY[array.type.unit]
    days = instants // per_day  # floors, so days before 1970 are right too
    angle = (instants - days * per_day) * (2 * np.pi / per_day)
    return Cells((np.sin(angle), np.cos(angle), *_weekday(days)), null, ())


def _weekday(days: npt.NDArray[np.int64]) -> tuple[Values, Values]:
    angles = np.arange(7) * (2 * np.pi / 7)  # Monday is at angle 0
    weekday = (days + EPOCH_WEEKDAY) % 7
    return np.sin(angles)[weekday], np.cos(angles)[weekday]


def decode_category(array: pa.Array) -> Cells:
    """Integers and booleans become text as Arrow casts them: "443", "true"."""
    text, null, problems = decode_text(array)
    return Cells((), null, problems, text)


def decode_text(array: pa.Array) -> tuple[Texts, Bools | None, tuple[tuple[Bools, str], ...]]:
    """The distinct texts of a column, checked to be UTF-8 (Parquet readers do not check)."""
    if pa.types.is_dictionary(array.type) and len(array.dictionary) > max(len(array), _ALWAYS):
        # Of a large dictionary that all batches of a file share, only what occurs here.
        array = array.dictionary_decode()
    encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    indices, texts = _text(encoded)
    wrong = find_invalid_utf8(texts)
    problems: tuple[tuple[Bools, str], ...] = ()
    if wrong is not None:
        texts = pc.if_else(pa.array(~wrong), texts, pa.scalar(None, texts.type))
        broken = np.append(wrong, False)[indices]
        if broken.any():
            problems = ((broken, "invalid_utf8"),)
    null = indices < 0
    return Texts(indices, texts), null if null.any() else None, problems


def _text(encoded: pa.DictionaryArray) -> Texts:
    texts = encoded.dictionary
    indices = np.asarray(encoded.indices.cast(pa.int32()).fill_null(-1))
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        view = pa.types.is_string_view(texts.type)
        texts = texts.cast(pa.large_string() if view else pa.string())
    if texts.null_count:  # a dictionary may hold null as one of its values
        indices = np.where(np.append(np.asarray(texts.is_null()), True)[indices], -1, indices)
    return Texts(indices.astype(np.int32, copy=False), texts)


def find_invalid_utf8(texts: pa.Array) -> Bools | None:
    """Rows [rows] of a string or large_string array that are no UTF-8; None for none."""
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
