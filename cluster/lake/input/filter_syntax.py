"""Python's parser on the text of a row filter, within bounds. Imports no Arrow."""

import ast
import re
from collections.abc import Mapping

from models.refusal import Refusal

# A list of 4,000 addresses after `in` fits.
_MOST_CHARACTERS = 64 * 1024
# Deeper than a person writes; Python's parser and Arrow both recurse.
_DEEPEST = 50
_MOST_SHOWN = 200
_SURROGATE = re.compile("[\ud800-\udfff]")  # has no bytes in UTF-8


def read_syntax(text: str) -> ast.expr:
    """The syntax tree of a filter. Raises `Refusal` for what is no expression, or beyond bounds.

    >>> ast.unparse(read_syntax("label==0"))
    'label == 0'
    """
    if len(text) > _MOST_CHARACTERS:
        raise Refusal(
            f"filter {show(text)}: expected at most {_MOST_CHARACTERS:,} characters, found "
            f"{len(text):,}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        raise Refusal(f"filter {show(text)} cannot be read: {reason[:_MOST_SHOWN]}") from None
    if _depth(tree) > _DEEPEST:
        raise Refusal(
            f"filter {show(text)}: it is nested too deeply; expected at most {_DEEPEST} levels"
        )
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            _check_constant(node.value, text)
    return tree.body


def mark_times(text: str, units: Mapping[str, str | None]) -> str:
    """The filter with the columns of `units` that it compares with texts marked as times.

    `units` has the units of the columns that hold times; None for timestamps, dates and texts.

    >>> mark_times("start >= '2026-11-20' and bytes > 0", {"start": "s"})
    "time(column('start'), 's') >= '2026-11-20' and bytes > 0"
    """
    tree = read_syntax(text)
    found = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            marked = [_mark(one, units) for one in sides] if any(map(_is_text, sides)) else sides
            found = found or marked != sides
            node.left, node.comparators = marked[0], marked[1:]
    return ast.unparse(tree) if found else text


def _is_text(node: ast.expr) -> bool:
    values = node.elts if isinstance(node, ast.List | ast.Tuple | ast.Set) else [node]
    return any(isinstance(one, ast.Constant) and isinstance(one.value, str) for one in values)


def _mark(node: ast.expr, units: Mapping[str, str | None]) -> ast.expr:
    match node:
        case ast.Name() | ast.Attribute():
            name = ast.unparse(node)
        case ast.Call(ast.Name("column"), [ast.Constant(str() as name)], []):
            pass
        case _:
            return node
    if name not in units:
        return node
    column = ast.Call(ast.Name("column"), [ast.Constant(name)], [])
    unit = units[name]
    return ast.Call(ast.Name("time"), [column, *([ast.Constant(unit)] if unit else [])], [])


def show(text: str) -> str:
    """The filter as messages quote it."""
    return repr(text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…")


def _check_constant(value: object, text: str) -> None:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Refusal(f"filter {show(text)}: expected numbers of 64 bits, found a larger one")
    if isinstance(value, str) and _SURROGATE.search(value):
        raise Refusal(f"filter {show(text)}: expected text, found half of a character")


def _depth(tree: ast.AST) -> int:
    deepest, level = 0, [tree]
    while level:
        deepest += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return deepest
