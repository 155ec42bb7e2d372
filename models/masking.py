"""The boundary that exception texts of libraries do not pass: they may quote a sensitive value.

A `Refusal` is ours and quotes nothing sensitive. Of any other error only its type, the place in the
code and a few known phrases are told.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from models.refusal import Refusal

# What Arrow says of a damaged file. Each stands in its texts word for word, without a value.
_PHRASES = (
    "Corrupt brotli compressed data",
    "Corrupt gzip compressed data",
    "Corrupt Lz4 compressed data",
    "Corrupt snappy compressed data",
    "Corrupt zstd compressed data",
    "Couldn't deserialize thrift",
    "could not verify page integrity, CRC checksum verification failed",
    "Dictionary page must be before data page",
    "Invalid number of indices",
    "Invalid page header",
    "Invalid UTF8",
    "Parquet file size is",
    "Parquet magic bytes not found in footer",
    "Unexpected end of stream",
    "Unknown encoding type",
    "ZSTD decompression failed",
)
_FRAMES = 3


class LibraryError(RuntimeError):
    """An error that nobody foresaw, without its text."""


def describe(error: BaseException) -> str:
    """What may be told of an error: all of a `Refusal`, of another its type and known phrases.

    >>> describe(ValueError("could not convert string to float: '4000123412345678'"))
    'ValueError'
    """
    if isinstance(error, Refusal | LibraryError):
        return str(error)
    text = str(error).lower()
    known = [phrase for phrase in _PHRASES if phrase.lower() in text]
    return ": ".join([type(error).__name__, *known[:1]])


@contextmanager
def masked_errors() -> Iterator[None]:
    """Raise an error of a library as a `LibraryError` that names its type and place.

    A `Refusal`, and what the system says of a file, a network or memory, pass.
    """
    try:
        yield
    except (Refusal, LibraryError, OSError, MemoryError):
        raise
    except Exception as error:
        raise LibraryError(f"{describe(error)} in {_find_place(error)}") from None


def render_trace(error: BaseException) -> str:
    """The traceback of an error and of its causes, each without its text."""
    parts, seen = [], set[int]()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"Traceback (most recent call last):\n{frames}{describe(current)}\n")
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    return "\nbefore that:\n\n".join(parts)


def _find_place(error: BaseException) -> str:
    """The last calls of our own code that led to the error, from the outer to the inner."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.endswith(".py") and "site-packages" not in frame.filename
    ]
    shown = frames[-_FRAMES:]
    return " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in shown)
