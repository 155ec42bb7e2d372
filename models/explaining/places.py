"""Where in an image, a series or a text the reason lies, in words."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.batch import SignalInput, TokenInput
from models.columns import Audio, FeatureColumn, Text
from models.decoding.audio import HOP_S, WINDOW_S, compute_band_edges
from models.decoding.texts import find_grams, tokens_to_text
from models.explaining.numbers import format_numbers

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

# Share of the largest contribution down to which its neighbours belong to the same place.
ALIKE = 0.5
AROUND = 2  # events shown on either side of the place
AROUND_BYTES = 12  # bytes of text shown on either side
MOST_GRAMS = 3  # words and 3-grams that share a bin, as shown
OTHER_EVENT = "other"
ELSEWHERE = "something else"  # where a detector expects nothing in particular


class Words(NamedTuple):
    """What was seen at a place, and what was expected there."""

    observed: str
    expected: str


def describe_signal(
    column: FeatureColumn,
    given: SignalInput,
    shares: Floats,
    observed: Floats,
    expected: Floats,
    text: str | None,
) -> Words:
    """Words for one row: `shares` [*shape], `observed` and `expected` [*raw shape] in the unit of
    the input; `text` is the row's text, where the signal is its bag of grams."""
    match given.kind:
        case "vector":
            place = int(shares.argmax())
            seen, wanted = format_numbers(np.array([observed[place], expected[place]]))
            if text is None:
                return Words(f"{seen} in element {place}", wanted)
            # A detector may expect less than none.
            (wanted,) = format_numbers(np.maximum(expected[place : place + 1], 0))
            return Words(f"{_grams(text, given.width, place)}: weight {seen}", f"weight {wanted}")
        case "series":
            return _in_series(given, shares, observed, expected)
        case "image" | "spectrogram" | "video":
            box = _box(shares.sum(0))
            level, usual = (float(whole[:, *box].mean()) for whole in (observed, expected))
            if isinstance(column, Audio):
                where = _in_spectrum(column, box)
                return Words(f"{_decibels(level)} at {where}", _decibels(usual))
            where = _in_picture(given, box)
            return Words(f"{_brightness(level)} at {where}", _brightness(usual))


def describe_tokens(
    column: FeatureColumn,
    given: TokenInput,
    vocabulary: tuple[str, ...],
    shares: Floats,
    observed: Codes,
    expected: Codes,
) -> Words:
    """Words for one row of tokens [length]: what stands at the place is put into brackets."""
    span = _run(shares, int(shares.argmax()))
    if isinstance(column, Text):
        near = slice(max(0, span.start - AROUND_BYTES), span.start)
        after = slice(span.stop, span.stop + AROUND_BYTES)
        before, at, behind = (
            escape(tokens_to_text(observed[part])) for part in (near, span, after)
        )
        wanted = escape(tokens_to_text(expected[span]))
        return Words(f"{before}[{at}]{behind}", wanted or ELSEWHERE)
    names = (OTHER_EVENT, *vocabulary)
    first, last = max(0, span.start - AROUND), min(given.length, span.stop + AROUND)
    shown = []
    for place in range(first, last):
        if code := int(observed[place]):
            event = escape(names[code - 1])
            shown.append(f"[{event}]" if span.start <= place < span.stop else event)
    code = int(expected[span.start])
    wanted = escape(names[code - 1]) if code else ELSEWHERE
    steps = _span(span, "step")
    return Words(f"{', '.join(shown) or 'no events'} at {steps}", wanted)


def escape(text: str) -> str:
    """Without characters that do not print: they could rewrite a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _in_series(given: SignalInput, shares: Floats, observed: Floats, expected: Floats) -> Words:
    channel, step = np.unravel_index(int(shares.argmax()), shares.shape)
    span = _run(shares[channel], int(step))
    where = _span(span, "step")
    if given.masked and channel == len(shares) - 1:
        there = not np.isnan(observed[:, span]).all()
        return Words(f"{'data' if there else 'no data'} at {where}", "no data" if there else "data")
    known = observed[channel, span]
    known = known[~np.isnan(known)]
    seen = format_numbers(known.mean(keepdims=True))[0] if len(known) else "nothing"
    wanted = format_numbers(expected[channel, span].mean(keepdims=True))[0]
    if len(observed) > 1:
        name = given.channels[channel] if given.channels else f"channel {channel}"
        where = f"{where} of {escape(name)}"
    return Words(f"{seen} at {where}", wanted)


def _in_picture(given: SignalInput, box: tuple[slice, ...]) -> str:
    rows, columns = _span(box[-2], "row"), _span(box[-1], "column")
    where = f"{rows}, {columns} of {given.shape[-2]} × {given.shape[-1]}"
    return f"{_span(box[0], 'frame')}, {where}" if given.kind == "video" else where


def _in_spectrum(column: Audio, box: tuple[slice, ...]) -> str:
    bands, steps = box
    edges = compute_band_edges(column.sample_rate, column.mels)
    low, high = edges[bands.start], edges[bands.stop + 1]
    first, last = steps.start * HOP_S, (steps.stop - 1) * HOP_S + WINDOW_S
    return f"{first:.2f}–{last:.2f} s, {low:,.0f}–{high:,.0f} Hz"


def _decibels(log_power: float) -> str:
    return f"{10 * log_power / math.log(10):.0f} dB"


def _brightness(value: float) -> str:
    return f"brightness {min(max(value, 0), 255):.0f} of 255"


def _grams(text: str, bins: int, place: int) -> str:
    """The words and 3-grams of the text that were hashed to this bin."""
    found = find_grams([text], bins)
    lower = text.lower()
    here = np.flatnonzero(found.bin == place)
    shown = {lower[found.start[i] : found.start[i] + found.length[i]]: None for i in here}
    words = sorted(shown, key=len, reverse=True)[:MOST_GRAMS]
    return ", ".join(f"'{escape(word)}'" for word in words) or f"words of group {place}"


def _box(shares: Floats) -> tuple[slice, ...]:
    """The place of the largest share, as far along each axis as it is alike."""
    peak = np.unravel_index(int(shares.argmax()), shares.shape)
    spans = []
    for axis, at in enumerate(peak):
        along = tuple(slice(None) if i == axis else p for i, p in enumerate(peak))
        spans.append(_run(shares[along], int(at)))
    return tuple(spans)


def _run(shares: Floats, peak: int) -> slice:
    """The places around the peak that are alike."""
    alike = shares >= ALIKE * shares[peak] if shares[peak] > 0 else shares > math.inf
    first = last = peak
    while first > 0 and alike[first - 1]:
        first -= 1
    while last + 1 < len(shares) and alike[last + 1]:
        last += 1
    return slice(first, last + 1)


def _span(places: slice, name: str) -> str:
    if places.stop - places.start == 1:
        return f"{name} {places.start}"
    return f"{name}s {places.start}–{places.stop - 1}"
