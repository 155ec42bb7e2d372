"""Describes in words the place in an image, series or text that the score came from."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.columns import Audio, FeatureColumn, Text
from models.decoding.audio import HOP_S, WINDOW_S, compute_band_edges
from models.decoding.texts import find_grams, tokens_to_text
from models.explaining.numbers import format_numbers
from models.layout import SignalInput, TokenInput

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

# Neighbours with at least this part of the largest share belong to the same place.
ALIKE = 0.5
AROUND = 2  # events shown on each side of the place
AROUND_BYTES = 12  # bytes of text shown on each side
MOST_GRAMS = 3  # words and 3-grams of a bin that are shown
OTHER_EVENT = "other"
ELSEWHERE = "something else"  # for a detector that expects nothing in particular


class Words(NamedTuple):
    """The observed, the expected and the usual value at a place."""

    observed: str
    expected: str
    usual: str | None = None


class Usual(NamedTuple):
    """What training had at each place of a signal, [*raw shape] each, in the unit of the input."""

    mean: Floats
    low: Floats  # two deviations below the mean, and above
    high: Floats

    def average(self, place: tuple[int | slice, ...]) -> Floats:
        """The three numbers at a place, [3]."""
        return np.array([float(np.mean(one[place])) for one in self])


def describe_signal(
    column: FeatureColumn,
    signal: SignalInput,
    shares: Floats,
    observed: Floats,
    expected: Floats,
    text: str | None,
    usual: Usual,
) -> Words:
    """Describe the signal of one row.

    `shares` is [*shape]; `observed` and `expected` are [*raw shape], in the unit of the input.
    `text` is the text of the row, if the signal is a bag of its grams.
    """
    match signal.kind:
        case "vector":
            at = int(shares.argmax())
            shown, wanted = format_numbers(np.array([observed[at], expected[at]]))
            known = usual.average((at,))
            if text is None:
                return Words(f"{shown} in element {at}", wanted, _say(format_numbers(known)))
            # A detector may expect less than 0.
            (wanted,) = format_numbers(np.maximum(expected[at : at + 1], 0))
            return Words(
                f"{_name_grams(text, signal.width, at)}: weight {shown}",
                f"weight {wanted}",
                _say(format_numbers(np.maximum(known, 0))),
            )
        case "series":
            return _describe_series(signal, shares, observed, expected, usual)
        case "image" | "spectrogram" | "video":
            box = _find_box(shares.sum(0))
            place = (slice(None), *box)
            numbers = [float(whole[place].mean()) for whole in (observed, expected, *usual)]
            if isinstance(column, Audio):
                where, words = _name_band(column, box), list(map(_format_decibels, numbers))
            else:
                where, words = _name_area(signal, box), list(map(_format_brightness, numbers))
            return Words(f"{words[0]} at {where}", words[1], _say(words[2:]))


def describe_tokens(
    column: FeatureColumn,
    tokens: TokenInput,
    vocabulary: tuple[str, ...],
    shares: Floats,
    observed: Codes,
    expected: Codes,
) -> Words:
    """Describe the tokens of one row, [length] each. The place is in brackets."""
    span = _find_run(shares, int(shares.argmax()))
    if isinstance(column, Text):
        near = slice(max(0, span.start - AROUND_BYTES), span.start)
        after = slice(span.stop, span.stop + AROUND_BYTES)
        before, at, behind = (
            escape(tokens_to_text(observed[part])) for part in (near, span, after)
        )
        wanted = escape(tokens_to_text(expected[span]))
        return Words(f"{before}[{at}]{behind}", wanted or ELSEWHERE)
    names = (OTHER_EVENT, *vocabulary)
    first, last = max(0, span.start - AROUND), min(tokens.length, span.stop + AROUND)
    shown = []
    for place in range(first, last):
        if code := int(observed[place]):
            event = escape(names[code - 1])
            shown.append(f"[{event}]" if span.start <= place < span.stop else event)
    code = int(expected[span.start])
    wanted = escape(names[code - 1]) if code else ELSEWHERE
    steps = _name_span(span, "step")
    return Words(f"{', '.join(shown) or 'no events'} at {steps}", wanted)


def escape(text: str) -> str:
    r"""Escape characters that are not printable: they could rewrite a terminal.

    >>> print(escape("a\x1b[2J"))
    a\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _describe_series(
    signal: SignalInput, shares: Floats, observed: Floats, expected: Floats, usual: Usual
) -> Words:
    channel, step = np.unravel_index(int(shares.argmax()), shares.shape)
    span = _find_run(shares[channel], int(step))
    where = _name_span(span, "step")
    if signal.masked and channel == len(shares) - 1:
        there = not np.isnan(observed[:, span]).all()
        return Words(f"{'data' if there else 'no data'} at {where}", "no data" if there else "data")
    known = observed[channel, span]
    known = known[~np.isnan(known)]
    seen = format_numbers(known.mean(keepdims=True))[0] if len(known) else "nothing"
    wanted = format_numbers(expected[channel, span].mean(keepdims=True))[0]
    if len(observed) > 1:
        name = signal.channels[channel] if signal.channels else f"channel {channel}"
        where = f"{where} of {escape(name)}"
    return Words(
        f"{seen} at {where}", wanted, _say(format_numbers(usual.average((int(channel), span))))
    )


def _say(words: Sequence[str]) -> str:
    mean, low, high = words
    return f"mean {mean}, mostly {low} to {high}"


def _name_area(signal: SignalInput, box: tuple[slice, ...]) -> str:
    rows, columns = _name_span(box[-2], "row"), _name_span(box[-1], "column")
    where = f"{rows}, {columns} of {signal.shape[-2]} × {signal.shape[-1]}"
    return f"{_name_span(box[0], 'frame')}, {where}" if signal.kind == "video" else where


def _name_band(column: Audio, box: tuple[slice, ...]) -> str:
    bands, steps = box
    edges = compute_band_edges(column.sample_rate, column.mels)
    low, high = edges[bands.start], edges[bands.stop + 1]
    first, last = steps.start * HOP_S, (steps.stop - 1) * HOP_S + WINDOW_S
    return f"{first:.2f}–{last:.2f} s, {low:,.0f}–{high:,.0f} Hz"


def _format_decibels(log_power: float) -> str:
    return f"{10 * log_power / math.log(10):.0f} dB"


def _format_brightness(value: float) -> str:
    return f"brightness {min(max(value, 0), 255):.0f} of 255"


def _name_grams(text: str, bins: int, place: int) -> str:
    """The words and 3-grams of the text that are hashed to this bin."""
    found = find_grams([text], bins)
    lower = text.lower()
    here = np.flatnonzero(found.bin == place)
    shown = {lower[found.start[i] : found.start[i] + found.length[i]]: None for i in here}
    words = sorted(shown, key=len, reverse=True)[:MOST_GRAMS]
    return ", ".join(f"'{escape(word)}'" for word in words) or f"words of group {place}"


def _find_box(shares: Floats) -> tuple[slice, ...]:
    """The area around the largest share: along each axis, the neighbours with large shares."""
    peak = np.unravel_index(int(shares.argmax()), shares.shape)
    spans = []
    for axis, at in enumerate(peak):
        along = tuple(slice(None) if i == axis else p for i, p in enumerate(peak))
        spans.append(_find_run(shares[along], int(at)))
    return tuple(spans)


def _find_run(shares: Floats, peak: int) -> slice:
    """The places around the peak whose shares are at least ALIKE of the peak's."""
    alike = shares >= ALIKE * shares[peak] if shares[peak] > 0 else shares > math.inf
    first = last = peak
    while first > 0 and alike[first - 1]:
        first -= 1
    while last + 1 < len(shares) and alike[last + 1]:
        last += 1
    return slice(first, last + 1)


def _name_span(places: slice, name: str) -> str:
    if places.stop - places.start == 1:
        return f"{name} {places.start}"
    return f"{name}s {places.start}–{places.stop - 1}"
