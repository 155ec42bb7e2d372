"""JSON in one canonical form, so that equal facts have equal bytes and equal digests."""

import json
from functools import cache
from typing import Any

from models.refusal import Refusal

# Documents of ours nest nine levels. Deeper ones could not be written again: the writer recurses.
DEEPEST = 50


def encode(document: Any, *, ascii_only: bool = False, spaced: bool = False) -> bytes:
    """JSON with sorted keys, without spaces, in UTF-8. Raises ValueError for NaN and infinity.

    The two options are for digests that were first taken of other bytes: `ascii_only` writes
    other characters as `\\u` escapes, `spaced` puts a space after each comma and colon.

    >>> encode({"b": 1, "a": "ü"}).decode()
    '{"a":"ü","b":1}'
    """
    return _encoder(ascii_only, spaced).encode(document).encode()


def decode(data: bytes, where: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises `Refusal`, which names `where`, for anything else.

    NaN and infinity, which JSON does not have, are refused, and nesting beyond `DEEPEST` levels.
    """
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200]
        raise Refusal(
            f"{where}: expected a JSON document, found something else: {reason}"
        ) from None
    if not isinstance(document, dict):
        raise Refusal(f"{where}: expected a JSON object, found a {type(document).__name__}")
    if _is_deeper(document, DEEPEST):
        raise Refusal(f"{where}: expected JSON of at most {DEEPEST} levels, found more")
    return document


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _is_deeper(document: Any, most: int) -> bool:
    level = [document]
    for _ in range(most):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
    return bool(level)


@cache  # making an encoder takes 1 µs, encoding a small document 2.5 µs
def _encoder(ascii_only: bool, spaced: bool) -> json.JSONEncoder:
    separators = (", ", ": ") if spaced else (",", ":")
    return json.JSONEncoder(
        sort_keys=True, separators=separators, ensure_ascii=ascii_only, allow_nan=False
    )
