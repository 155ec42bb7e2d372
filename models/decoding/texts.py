"""Decodes free text to its bytes as tokens, and to a bag of hashed words and 3-grams.

All texts of a batch are hashed at once, as one array of code points.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import Text
from models.decoding.scalars import Cells, find_invalid_utf8, find_nulls

Codes = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

FIRST_BYTE = 2  # token of byte 0: 0 is padding, 1 is "other"
TOKENS = 256 + FIRST_BYTE
# Characters of a text that are hashed, so that a book in a cell costs no more than a few pages.
MOST_CHARACTERS = 16_384
# Base of the polynomial that hashes characters: the multiplier of Knuth's MMIX.
_BASE = np.uint64(6_364_136_223_846_793_005)
# Added to the hash of a word, to tell it from the same 3-gram.
_WORD = np.uint64(0x9E37_79B9_7F4A_7C15)


class Grams(NamedTuple):
    """The words and 3-grams of some texts, [grams] each."""

    row: Codes  # index of the text
    start: Codes  # place of the first character in the concatenated texts
    length: Codes  # number of characters
    bin: Codes  # bin that the gram is hashed to


def decode_texts(array: pa.Array, column: Text) -> Cells:
    """Decode to tokens, int32 [rows, length], and a signal, float32 [rows, ngrams].

    Rule: invalid_utf8.
    """
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())
    wrong = find_invalid_utf8(array)
    if wrong is not None:
        array = pc.if_else(pa.array(~wrong), array, pa.scalar("", array.type))
    signal = None
    if column.ngrams:
        signal = weigh_grams(array.fill_null("").to_pylist(), column.ngrams)
    problems = () if wrong is None else ((wrong, "invalid_utf8"),)
    tokens = _make_tokens(array, column.length)
    return Cells((), find_nulls(array), problems, signal=signal, tokens=tokens)


def weigh_grams(texts: list[str], bins: int) -> npt.NDArray[np.float32]:
    """The weight of each bin, float32 [rows, bins]: log(1 + count), scaled to Euclidean norm 1.

    A text without grams has norm 0.
    """
    grams = find_grams(texts, bins)
    counts = np.bincount(grams.row * bins + grams.bin, minlength=len(texts) * bins)
    weights = np.log1p(counts.reshape(len(texts), bins))
    norm = np.sqrt(np.square(weights).sum(1, keepdims=True))
    whole: npt.NDArray[np.float32] = (weights / np.where(norm > 0, norm, 1)).astype(np.float32)
    return whole


def find_grams(texts: list[str], bins: int) -> Grams:
    """Find words (runs of letters and digits) and 3-grams (of any characters), in lower case."""
    lower = [text[:MOST_CHARACTERS].lower() for text in texts]
    lengths = np.array([len(text) for text in lower], np.int64)
    joined = "".join(lower).encode("utf-32-le", "surrogatepass")
    characters = np.frombuffer(joined, np.uint32).astype(np.uint64)
    row = np.repeat(np.arange(len(texts)), lengths)
    thirds = np.flatnonzero(row[2:] == row[:-2])
    powers = _compute_powers(3)
    three = sum((characters[thirds + i] * powers[i] for i in range(3)), np.uint64(0))
    words, sizes, hashes = _find_words(characters, row)
    start = np.concatenate([thirds, words])
    bin_of = _mix_bits(np.concatenate([three, hashes + _WORD])) % np.uint64(bins)
    length = np.concatenate([np.full(len(thirds), 3), sizes])
    return Grams(row[start], start, length, bin_of.astype(np.int64))


def _find_words(characters: Hashes, row: Codes) -> tuple[Codes, Codes, Hashes]:
    """The start, length and hash of each word."""
    kinds, place = np.unique(characters, return_inverse=True)
    inside = np.array([chr(int(kind)).isalnum() for kind in kinds], bool)[place]
    at = np.flatnonzero(inside)
    if not len(at):
        return at, at, np.empty(0, np.uint64)
    apart = (np.diff(at) > 1) | (np.diff(row[at]) > 0)
    first = np.flatnonzero(np.concatenate([[True], apart]))  # into `at`
    sizes = np.diff(np.append(first, len(at)))
    within = np.arange(len(at)) - np.repeat(first, sizes)
    powers = _compute_powers(int(sizes.max()))
    return at[first], sizes, np.add.reduceat(characters[at] * powers[within], first)


def _compute_powers(count: int) -> Hashes:
    """The base to the power of 0, 1, … count - 1, modulo 2^64."""
    factors = np.full(count, _BASE)
    factors[:1] = 1
    return np.cumprod(factors, dtype=np.uint64)


def _mix_bits(hashes: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014): every bit depends on every other."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return hashes ^ (hashes >> np.uint64(31))


def _make_tokens(array: pa.Array, length: int) -> npt.NDArray[np.int32]:
    """The first bytes of each text, then padding: [rows, length]."""
    large = array.fill_null("").cast(pa.large_binary())
    offsets = np.frombuffer(large.buffers()[1], np.int64)
    offsets = offsets[large.offset : large.offset + len(large) + 1]
    content = np.frombuffer(large.buffers()[2] or b"", np.uint8)
    place = np.arange(length)
    there = place < np.minimum(np.diff(offsets), length)[:, None]
    tokens = np.zeros(there.shape, np.int32)
    tokens[there] = content[(offsets[:-1, None] + place)[there]].astype(np.int32) + FIRST_BYTE
    return tokens


def tokens_to_text(tokens: Codes) -> str:
    """The text of tokens, [length]. A character that was cut off is left out."""
    raw = bytes((tokens[tokens >= FIRST_BYTE] - FIRST_BYTE).astype(np.uint8))
    return raw.decode(errors="ignore")
