"""Makes untrusted text safe to show, one function a target: attackers write log fields.

Terminals obey escape sequences, browsers obey direction marks, and a line of a megabyte slows both.
Every character that draws nothing, or moves other characters, is shown as an escape instead.
Pages are escaped for HTML in `jobs/report/pages.py`.
"""

import html
import unicodedata
from typing import Any

from rich.markup import escape

# Control, format (direction marks, zero width), surrogate, private, unassigned, line separators.
_UNDRAWN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
# Vietnamese and Hebrew put up to three marks on a letter; more would cover other lines.
_MARKS_IN_A_ROW = 3
# Two lines of a page; the table of flags has the whole value.
LIMIT = 160
# Messages list columns and files, so they may be long.
_LINE = 4_000
_CHAT = 2_000  # chats cut longer messages


def printable(text: str, limit: int = LIMIT) -> str:
    r"""At most `limit` characters of `text` and "…", with undrawn characters as escapes.

    All kinds of spaces become plain ones, and the result is one line.

    >>> printable("total\x1b[2K\u202e")
    'total\\x1b[2K\\u202e'
    """
    shown = text[:limit]
    end = "…" if len(text) > limit else ""
    if shown.isascii() and shown.isprintable():  # most texts
        return shown + end
    pieces: list[str] = []
    marks = 0
    for character in shown:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        if category in _UNDRAWN or marks > _MARKS_IN_A_ROW:
            pieces.append(_escape(character))
        else:
            pieces.append(" " if category == "Zs" else character)
    return "".join(pieces) + end


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape_message(text: str) -> str:
    """A message that may quote untrusted names, made safe for `rich` to print."""
    return escape("\n".join(printable(line, _LINE) for line in text.split("\n")))


def escape_chat(text: str) -> str:
    """A message on one line for Slack and Mattermost: `<`, `>` and `&` are escaped, so that a name
    from a log cannot mention everybody."""
    return html.escape(printable(" ".join(text.split()), _CHAT), quote=False)


def printable_document(value: Any, limit: int = LIMIT) -> Any:
    """A copy of a JSON document with printable strings and keys, and None for NaN and infinity.

    Bytes, such as the picture of a flag, are no text and stay as they are.
    """
    if isinstance(value, str):
        return printable(value, limit)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, dict):
        return {printable(str(k), limit): printable_document(v, limit) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [printable_document(v, limit) for v in value]
    return value
