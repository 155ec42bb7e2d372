"""The error messages of a spec: file, line and key, what was expected and what was found."""

import re
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from jobs.spec.source import Key, Source, SpecRefused, join_key
from models.suggestion import join_names, suggest

MOST_CHARACTERS = 80  # of a found value in a message
_CREDENTIALS = re.compile(r"://[^/@\s]*@")  # in a URI; hidden because messages go to logs

EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length} values",
    "too_long": "at most {max_length} values",
    "string_too_short": "at least {min_length} characters",
    "expected": "{expected}",
}


def value_error(expected: str) -> PydanticCustomError:
    """An error for a validator to raise. `translate` adds the value that was found."""
    return PydanticCustomError("expected", "expected {expected}", {"expected": expected})


def key_errors(found: list[tuple[Key, str]]) -> PydanticCustomError:
    """An error for a validator to raise that found several problems, each under its own key."""
    text = "; ".join(f"{join_key(key)}: {message}" for key, message in found)
    return PydanticCustomError("problems", "{text}", {"text": text, "problems": found})


def translate(
    error: ValidationError, source: Source, keys: dict[str, tuple[str, ...]]
) -> SpecRefused:
    """All problems of a document as `file:line: key: …`, in the order of the file.

    `keys` has the valid keys of each place: `""` for the top, `"columns.*"` for any column.
    """
    lines: list[tuple[int, str]] = []
    for one in error.errors(include_url=False):
        place = _place(one["loc"], source)
        for key, message in _messages(one, place, keys):
            key = source.strip_positions(key)
            line = source.line(key)
            lines.append((line, f"{source.path}:{line}: {join_key(key)}: {message}"))
    return SpecRefused([text for _, text in sorted(lines, key=lambda pair: pair[0])])


def _place(loc: Key, source: Source) -> Key:
    """The key in the file: without the union tag that pydantic adds to the location."""
    if loc[:1] == ("threshold",) and len(loc) > 2:
        return ("threshold", *loc[2:])
    return loc


def _messages(error: Any, key: Key, keys: dict[str, tuple[str, ...]]) -> list[tuple[Key, str]]:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "problems":
        return [((*key, *tail), message) for tail, message in context["problems"]]
    if kind == "missing":
        short = isinstance(key[-1], int)
        return [(key, "expected one more value in the list" if short else "is missing")]
    if kind == "union_tag_not_found":
        return [((*key, "policy"), "is missing")]
    if kind == "extra_forbidden":
        return [(key, _unknown_key(key, value, keys))]
    if kind == "union_tag_invalid":
        choices = re.findall(r"'([^']*)'", context["expected_tags"])
        return [((*key, "policy"), one_of(choices, context["tag"]))]
    if kind == "literal_error":
        return [(key, one_of(re.findall(r"'([^']*)'", context["expected"]), value))]
    text = EXPECTED.get(kind)
    if text is None:
        return [(key, str(error["msg"]))]
    return [(key, f"expected {text.format(**context)}, found {_show(value)}")]


def one_of(choices: list[str], value: object) -> str:
    """`expected one of a, b, found 'c'; did you mean 'b'?`"""
    near = suggest(value, choices) if isinstance(value, str) else ""
    return f"expected one of {join_names(choices)}, found {_show(value)}{near}"


def _unknown_key(key: Key, value: object, keys: dict[str, tuple[str, ...]]) -> str:
    parent = [str(part) for part in key[:-1]]
    if parent[:1] in (["columns"], ["history"]):
        parent[1:2] = ["*"]
    valid = keys.get(".".join(parent), ())
    near = suggest(str(key[-1]), valid)
    return f"expected one of {join_names(valid)}, found the unknown key {str(key[-1])!r}{near}"


def _show(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    text = _CREDENTIALS.sub("://…@", text)
    return text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "…"
