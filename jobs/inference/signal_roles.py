"""Guesses the role of columns of lists, bytes or long texts."""

import pyarrow as pa

from models.columns import Image, Sequence, Vector
from models.schema import find_signature

MOST_CELLS = 50  # to read
WORDS = 3  # fewest words of a text on average; shorter texts are names or codes

# The first bytes of files. RIFF has the kind of the file in bytes 8 to 11.
MAGIC = {
    b"\x89PNG\r\n\x1a\n": ("image", "PNG"),
    b"\xff\xd8\xff": ("image", "JPEG"),
    b"fLaC": ("audio", "FLAC"),
}
RIFF = {b"WEBP": ("image", "WebP"), b"WAVE": ("audio", "WAV")}


def infer_signal_role(column: pa.ChunkedArray) -> tuple[str, str] | None:
    """(role, reason) of a column of lists or bytes; None if no role fits."""
    kind = column.type
    known = column.drop_null()
    if find_signature(Image(""), kind):
        formats = {_format(cell) for cell in known.slice(0, MOST_CELLS).to_pylist()}
        if None in formats or len({found[0] for found in formats if found}) != 1:
            return None
        (role,) = {found[0] for found in formats if found}
        names = " and ".join(sorted(found[1] for found in formats if found))
        return role, f"{names} files"
    if pa.types.is_fixed_size_list(kind) and find_signature(Vector(""), kind):
        return "vector", f"{kind.list_size} numbers a row"
    if found := find_signature(Sequence(""), kind):
        return "sequence", f"lists: {found}"
    if pa.types.is_list(kind) and find_signature(Image(""), kind.value_type):
        frames = [cell for row in known.slice(0, MOST_CELLS).to_pylist() for cell in row]
        if frames and all((_format(cell) or ("",))[0] == "image" for cell in frames):
            return "video", "lists of image files"
    return None


def is_prose(distinct: pa.Array) -> bool:
    """Whether the texts are made of words, and are not names or codes."""
    texts = [text for text in distinct[:MOST_CELLS].to_pylist() if text]
    return bool(texts) and sum(len(text.split()) for text in texts) >= WORDS * len(texts)


def _format(cell: bytes | None) -> tuple[str, str] | None:
    """(role, format) of a file by its first bytes; None for any other."""
    if not cell:
        return None
    if cell[:4] == b"RIFF":
        return RIFF.get(cell[8:12])
    return next((found for magic, found in MAGIC.items() if cell.startswith(magic)), None)
