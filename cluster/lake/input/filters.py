"""Row filters as a spec writes them: `label == 0 and proto in ("tcp", "udp")`.

Python's own parser reads a filter, and Arrow evaluates it. Only the syntax listed here is allowed.
"""

import ast
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import acero

from cluster.lake.input.arrow_types import plain_type
from cluster.lake.input.filter_syntax import read_syntax, show
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
_ALLOWED = (
    "columns, numbers, texts, True, False, comparisons, in, not in, is None, is not None, "
    "and, or, not, and column('a name with spaces')"
)


@dataclass(frozen=True)
class RowFilter:
    """Which rows to keep. A comparison with null is not true."""

    text: str
    columns: tuple[str, ...]  # the columns it reads
    expression: pc.Expression = field(compare=False, repr=False)

    def check(self, schema: pa.Schema) -> None:
        """Raise `Refusal` where a column's type does not fit its comparison."""
        fields = [pa.field(name, plain_type(schema.field(name).type)) for name in self.columns]
        empty = pa.schema(fields).empty_table()
        try:
            kind = self._evaluate(empty).type
            if not pa.types.is_boolean(kind):
                raise TypeError(f"it is not true or false, but a value of type {kind}")
        except (pa.ArrowException, TypeError) as error:
            kinds = ", ".join(f"{name} is {empty.schema.field(name).type}" for name in self.columns)
            reason = str(error).splitlines()[0]
            raise Refusal(
                f"filter {show(self.text)} does not fit its columns ({kinds}): {reason}"
            ) from None

    def mask(self, batch: pa.RecordBatch) -> np.ndarray:
        """bool [rows]: True for the rows to keep."""
        columns = [_decode(batch.column(name)) for name in self.columns]
        mask = self._evaluate(pa.table(columns, names=list(self.columns)))
        known: np.ndarray = mask.fill_null(False).to_numpy(zero_copy_only=False)
        return known

    def _evaluate(self, table: pa.Table) -> pa.Array:
        columns = [_widen_decimals(column) for column in table.columns]
        table = pa.table(columns, names=table.column_names)
        steps = [
            acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
            acero.Declaration("project", acero.ProjectNodeOptions([self.expression], ["keep"])),
        ]
        # One thread: several return the rows in any order.
        column = acero.Declaration.from_sequence(steps).to_table(use_threads=False).column(0)
        return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def parse_filter(text: str, names: Sequence[str]) -> RowFilter:
    """Parse a filter over columns of these names. Raises `Refusal`, with what is wrong and where.

    >>> parse_filter("label == 0 and proto in ('tcp', 'udp')", ["label", "proto", "port"]).columns
    ('label', 'proto')
    """
    reader = _Reader(text, tuple(names))
    expression = reader.truth(read_syntax(text))
    if not reader.columns:
        raise reader.refusal("it names no column", "a comparison such as label == 0")
    return RowFilter(text, tuple(dict.fromkeys(reader.columns)), expression)


class _Reader:
    """Turns the syntax tree into an Arrow expression, and collects its columns."""

    def __init__(self, text: str, names: tuple[str, ...]) -> None:
        self.text, self.names = text, names
        self.columns: list[str] = []  # in the order of the text

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
            inside = self._column(left).isin(self._values(right))
            return inside if isinstance(op, ast.In) else ~inside
        compare = _COMPARISONS.get(type(op))
        if compare is None:
            raise self.refusal(f"found the comparison {type(op).__name__}")
        return compare(self._operand(left), self._operand(right))

    def _values(self, node: ast.expr) -> pa.Array:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set) or not node.elts:
            raise self.refusal(f"found {ast.unparse(node)!r} after `in`", "values in brackets")
        values = [self._constant(one) for one in node.elts]
        try:
            return pa.array(values)
        except (pa.ArrowException, TypeError):
            raise self.refusal("values of several kinds after `in`", "values of one kind") from None

    def _operand(self, node: ast.expr) -> pc.Expression:
        if isinstance(node, ast.Name | ast.Attribute | ast.Call):
            return self._column(node)
        return pc.scalar(self._constant(node))

    def _constant(self, node: ast.expr) -> bool | int | float | str:
        match node:
            case ast.Constant(bool() | int() | float() | str() as value):
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)):
                return -number
        raise self.refusal(f"found {ast.unparse(node)!r}")

    def _column(self, node: ast.expr) -> pc.Expression:
        name = self._name(node)
        if name not in self.names:
            raise Refusal(
                f"filter {show(self.text)}: there is no column {name!r}"
                f"{suggest(name, self.names) or '.'} "
                f"The input has {len(self.names)} columns: {join_names(self.names)}"
            )
        self.columns.append(name)
        return pc.field(name)

    def _name(self, node: ast.expr) -> str:
        match node:
            case ast.Name(name):
                return name
            case ast.Attribute(inner, name):  # names with dots, as Zeek writes them: id.orig_h
                return f"{self._name(inner)}.{name}"
            case ast.Call(ast.Name("column"), [ast.Constant(str() as name)], []):
                return name
        raise self.refusal(f"found {ast.unparse(node)!r} where a column should be")


def _join(parts: list[pc.Expression], both: bool) -> pc.Expression:
    """All parts joined by `and` or `or`, as a tree of little depth: Arrow recurses."""
    while len(parts) > 1:
        pairs = itertools.zip_longest(parts[::2], parts[1::2])
        parts = [a if b is None else a & b if both else a | b for a, b in pairs]
    return parts[0]


def _widen_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals with room for the integers of a filter, which Arrow compares as 19 digits."""
    kind = column.type
    return column.cast(pa.decimal256(76, kind.scale)) if pa.types.is_decimal(kind) else column


def _decode(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
