"""Marks each line of stdout, so that the submitter can tell results from the log."""

import io
from typing import TextIO

# RECORD SEPARATOR, as in JSON text sequences (RFC 7464). All our other output escapes it.
MARK = "\x1e"


class MarkedLines(io.TextIOBase):
    """A stream that begins each line with the mark. A line is written whole, so that no line of
    stderr interrupts it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._rest = stream, ""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute elsewhere; rich reads it
        return self._stream.encoding

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._stream.write(f"{MARK}{line}\n")
            self._stream.flush()
        return len(text)
