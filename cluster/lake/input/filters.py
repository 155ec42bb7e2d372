"""Row filters as a spec writes them: `label == 0 and proto in ("tcp", "udp")`.

Python's own parser reads a filter, and Arrow evaluates it. Only the syntax listed here is allowed.
"""

import ast
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

from cluster.lake.input.arrow_types import plain_type
from cluster.lake.input.filter_syntax import read_syntax, show
from cluster.lake.types.unify import is_number
from models.decoding.times import MICROSECONDS, decode_times
from models.refusal import Refusal
from models.suggestion import join_names, suggest

_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COLUMN = (ast.Name, ast.Attribute, ast.Call)
_AS_TIME = "\0as a time"  # ends the name of a column of times that is made from texts
_NS_END = 2**63 // 1000  # microseconds
_ALLOWED = (
    "columns, numbers, texts, True, False, comparisons, in, not in, is None, is not None, "
    "and, or, not, column('a name with spaces') and time(column, 's')"
)


@dataclass(frozen=True)
class RowFilter:
    """Which rows to keep. A comparison with null is not true."""

    text: str
    columns: tuple[str, ...]  # the columns it reads
    _built: dict[pa.Schema, "_Built"] = field(default_factory=dict, compare=False, repr=False)

    def check(self, schema: pa.Schema) -> None:
        """Raise `Refusal` where a column's type does not fit its comparison."""
        fields = [pa.field(name, plain_type(schema.field(name).type)) for name in self.columns]
        empty = pa.schema(fields).empty_table()
        try:
            kind = self._evaluate(empty)[0].type
            if not pa.types.is_boolean(kind):
                raise TypeError(f"it is not true or false, but a value of type {kind}")
        except (pa.ArrowException, TypeError) as error:
            kinds = ", ".join(f"{name} is {empty.schema.field(name).type}" for name in self.columns)
            reason = str(error).splitlines()[0]
            raise Refusal(
                f"filter {show(self.text)} does not fit its columns ({kinds}): {reason}"
            ) from None

    def mask(self, batch: pa.RecordBatch) -> np.ndarray:
        """bool [rows]: True for the rows to keep.

        A row whose text should be a time and is none is kept: the rule of times sets it aside.
        """
        columns = [_decode(batch.column(name)) for name in self.columns]
        found, broken = self._evaluate(pa.table(columns, names=list(self.columns)))
        mask: np.ndarray = found.fill_null(False).to_numpy(zero_copy_only=False)
        return mask if broken is None else mask | broken

    def express(self, schema: pa.Schema) -> pc.Expression | None:
        """The filter over columns of these types; None where it needs columns that are computed."""
        built = self._build(schema)
        return None if built.texts else built.expression

    def _build(self, schema: pa.Schema) -> "_Built":
        wanted = pa.schema([schema.field(name).remove_metadata() for name in self.columns])
        if wanted not in self._built:
            reader = _Reader(self.text, dict(zip(wanted.names, wanted.types, strict=True)))
            expression = reader.truth(read_syntax(self.text))
            self._built[wanted] = _Built(expression, tuple(dict.fromkeys(reader.texts)))
        return self._built[wanted]

    def _evaluate(self, table: pa.Table) -> tuple[pa.Array, np.ndarray | None]:
        """True, false or null for each row, and which rows have a text that is no time."""
        built, broken = self._build(table.schema), None
        columns = [_widen_decimals(column) for column in table.columns]
        table = pa.table(columns, names=table.column_names)
        for name in built.texts:
            times = decode_times(table.column(name).combine_chunks())
            table = table.append_column(name + _AS_TIME, times.instants)
            if times.broken is not None:
                broken = times.broken if broken is None else broken | times.broken
        steps = [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
            acero.Declaration("project", acero.ProjectNodeOptions([built.expression], ["keep"])),
        ]
        # One thread: several return the rows in any order.
        column = acero.Declaration.from_sequence(steps).to_table(use_threads=False).column(0)
        return pa.concat_arrays(column.chunks or [pa.array([], column.type)]), broken


class _Built(NamedTuple):
    """A filter over columns of certain types."""

    expression: pc.Expression
    texts: tuple[str, ...]  # columns of text that it takes for times


def parse_filter(text: str, names: Sequence[str]) -> RowFilter:
    """Parse a filter over columns of these names. Raises `Refusal`, with what is wrong and where.

    >>> parse_filter("label == 0 and proto in ('tcp', 'udp')", ["label", "proto", "port"]).columns
    ('label', 'proto')
    """
    reader = _Reader(text, dict.fromkeys(names))
    reader.truth(read_syntax(text))
    if not reader.columns:
        raise reader.refusal("it names no column", "a comparison such as label == 0")
    return RowFilter(text, tuple(dict.fromkeys(reader.columns)))


class _Reader:
    """Turns the syntax tree into an Arrow expression, and collects its columns."""

    def __init__(self, text: str, kinds: Mapping[str, pa.DataType | None]) -> None:
        """`kinds` has the types by the names of the columns; None where it is not known yet."""
        self.text, self.kinds = text, kinds
        self.columns: list[str] = []  # in the order of the text
        self.texts: list[str] = []  # those of text that are taken for times

    def refusal(self, found: str, expected: str = _ALLOWED) -> Refusal:
        return Refusal(f"filter {show(self.text)}: {found}; expected {expected}")

    def truth(self, node: ast.expr) -> pc.Expression:
        match node:
            case ast.BoolOp(op, values):
                return _join([self.truth(value) for value in values], isinstance(op, ast.And))
            case ast.UnaryOp(ast.Not(), inner):
                return ~self.truth(inner)
            case ast.Compare(left, ops, rights):
                return self._chain(left, ops, rights)
            case ast.Constant(bool()):
                return pc.scalar(node.value)
            case ast.Name() | ast.Attribute() | ast.Call():
                return self._column(node)
        raise self.refusal(f"found {ast.unparse(node)!r}")

    def _chain(self, left: ast.expr, ops: list[ast.cmpop], rights: list[ast.expr]) -> pc.Expression:
        lefts = (left, *rights)
        pairs = zip(lefts, ops, rights, strict=False)  # each value is compared with the next
        return _join([self._comparison(*pair) for pair in pairs], both=True)

    def _comparison(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> pc.Expression:
        none = isinstance(right, ast.Constant) and right.value is None
        if isinstance(op, ast.Is | ast.IsNot):
            if not none:
                raise self.refusal("`is` was used with a value", "`is None`, or `==` for a value")
            null = self._column(left).is_null()
            return null if isinstance(op, ast.Is) else ~null
        if none or (isinstance(left, ast.Constant) and left.value is None):
            raise self.refusal("None was compared", "`is None` or `is not None`")
        if isinstance(op, ast.In | ast.NotIn):
            inside = self._membership(left, right)
            return inside if isinstance(op, ast.In) else ~inside
        compare = _COMPARISONS.get(type(op))
        if compare is None:
            raise self.refusal(f"found the comparison {type(op).__name__}")
        return compare(self._operand(left, right), self._operand(right, left))

    def _membership(self, left: ast.expr, right: ast.expr) -> pc.Expression:
        if not isinstance(right, ast.List | ast.Tuple | ast.Set) or not right.elts:
            raise self.refusal(f"found {ast.unparse(right)!r} after `in`", "values in brackets")
        column = self._column(left)
        values = [self._constant(one) for one in right.elts]
        kind = self.kinds.get(self._name(left)[0])
        far = any(isinstance(value, int) and value >= 2**63 for value in values)
        decimal = kind is not None and pa.types.is_decimal(kind)
        if far or decimal or self._is_time(left):  # Arrow has no such sets
            each = [self._operand(one, left) for one in right.elts]
            return _join([column == one for one in each], both=False)
        try:
            return column.isin(pa.array(values))
        except (pa.ArrowException, TypeError):
            raise self.refusal("values of several kinds after `in`", "values of one kind") from None

    def _operand(self, node: ast.expr, beside: ast.expr) -> pc.Expression:
        """A column, or a value in the type of the column that it is compared with."""
        if isinstance(node, _COLUMN):
            return self._column(node)
        value: Any = self._constant(node)
        if isinstance(beside, _COLUMN):
            name, unit = self._name(beside)
            kind = self.kinds.get(name)
            if kind is not None and isinstance(value, str) and self._is_time(beside):
                value = self._read_moment(value, kind, unit)
            if kind is not None and isinstance(value, int) and pa.types.is_decimal(kind):
                value = pa.scalar(Decimal(value), _widen_decimal(kind))
            if kind == pa.uint64() and isinstance(value, int) and value >= 0:
                value = pa.scalar(value, kind)  # Arrow would compare as int64
        far = isinstance(value, int) and value >= 2**63
        return pc.scalar(pa.scalar(value, pa.uint64()) if far else value)

    def _constant(self, node: ast.expr) -> bool | int | float | str:
        match node:
            case ast.Constant(bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
                return -number
        raise self.refusal(f"found {ast.unparse(node)!r}")

    def _is_time(self, node: ast.expr) -> bool:
        """Whether the column is known to be a time, by its type or by `time(…)`."""
        if not isinstance(node, _COLUMN):
            return False
        kind = self.kinds.get(self._name(node)[0])
        temporal = kind is not None and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))
        return temporal or (kind is not None and self._is_called_time(node))

    @staticmethod
    def _is_called_time(node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and ast.unparse(node.func) == "time"

    def _read_moment(self, text: str, kind: pa.DataType, unit: str | None) -> Any:
        """A text in ISO 8601 as a value to compare with a column of type `kind`."""
        moment = decode_times(pa.array([text])).instants[0]
        if not moment.is_valid:
            raise self.refusal(
                f"a time is compared with {text!r}", "ISO 8601, such as '2026-11-20T06:00:00Z'"
            )
        if unit and is_number(kind):
            micros = moment.cast(pa.int64()).as_py()
            whole, rest = divmod(micros * 1000, round(MICROSECONDS[unit] * 1000))
            if not rest:
                return min(max(whole, -(2**63)), 2**63 - 1)
            if pa.types.is_floating(kind):
                return micros / MICROSECONDS[unit]
            raise self.refusal(
                f"a time in whole {unit} ({kind}) is compared with {text!r}", "no fraction of one"
            )
        if not pa.types.is_timestamp(kind):
            return moment
        if kind.unit == "ns":  # which end in the year 2262
            bounded = min(max(moment.cast(pa.int64()).as_py(), -_NS_END), _NS_END)
            moment = pa.scalar(bounded, pa.timestamp("us"))
        return moment.cast(pa.timestamp("us", kind.tz))

    def _column(self, node: ast.expr) -> pc.Expression:
        name, unit = self._name(node)
        if name not in self.kinds:
            raise Refusal(
                f"filter {show(self.text)}: there is no column {name!r}"
                f"{suggest(name, self.kinds) or '.'} "
                f"The input has {len(self.kinds)} columns: {join_names(self.kinds)}"
            )
        self.columns.append(name)
        kind = self.kinds[name]
        if kind is None or not self._is_called_time(node):
            return pc.field(name)
        if pa.types.is_string(kind):
            self.texts.append(name)
            return pc.field(name + _AS_TIME)
        if is_number(kind) and unit is None:
            raise self.refusal(
                f"{name!r} is a number ({kind}) taken for a time",
                "the unit of the column in the spec (s, ms, us or ns)",
            )
        return pc.field(name)

    def _name(self, node: ast.expr) -> tuple[str, str | None]:
        """The name of a column, and the unit of its time where one is given."""
        match node:
            case ast.Name(name):
                return name, None
            case ast.Attribute(inner, name):  # names with dots, as Zeek writes them: id.orig_h
                return f"{self._name(inner)[0]}.{name}", None
            case ast.Call(ast.Name("column"), [ast.Constant(str() as name)], []):
                return name, None
            case ast.Call(ast.Name("time"), [inner], []):
                return self._name(inner)[0], None
            case ast.Call(ast.Name("time"), [inner, ast.Constant(str() as unit)], []):
                if unit not in MICROSECONDS:
                    raise self.refusal(f"found the unit {unit!r}", "s, ms, us or ns")
                return self._name(inner)[0], unit
        raise self.refusal(f"found {ast.unparse(node)!r} where a column should be")


def _join(parts: list[pc.Expression], both: bool) -> pc.Expression:
    """All parts joined by `and` or `or`, as a tree of little depth: Arrow recurses."""
    while len(parts) > 1:
        pairs = itertools.zip_longest(parts[::2], parts[1::2])
        parts = [a if b is None else a & b if both else a | b for a, b in pairs]
    return parts[0]


def _widen_decimal(kind: pa.DataType) -> pa.DataType:
    """The type of a decimal with room for every integer of a filter."""
    return pa.decimal256(76, kind.scale)


def _widen_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(_widen_decimal(kind)) if pa.types.is_decimal(kind) else column


def _decode(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
