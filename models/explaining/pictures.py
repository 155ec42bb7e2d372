"""Draws the signal of a flag, and beside it the places that the score came from."""

import io
from collections.abc import Collection
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.evidence import Evidence
from models.layout import Layout, SignalInput

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# Five colours of matplotlib's inferno, where equal steps look equal, also in print.
_STOPS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64
)
KINDS = ("series", "image", "spectrogram", "video")
_LEAST_SIDE = 112  # pixels of the shorter side of an enlarged panel; the factors are whole
_MOST_SIDE = 448  # most pixels of the longer side
_GAP = 4  # white pixels between the panels


class Picture(TypedDict):
    """The picture of a flag."""

    feature: str
    png: bytes


def draw_largest_share(
    layout: Layout, evidence: Evidence, row: int, allowed: Collection[str]
) -> Picture | None:
    """Draw the signal of a row that has the largest share.

    `allowed` holds the names of the signals that may be shown. Returns None if there is none, or if
    the detector has no maps of the shares.
    """
    first = len(layout.numeric) + len(layout.categories)
    places = [
        place
        for place, signal in enumerate(layout.signals)
        if signal.kind in KINDS and signal.name in allowed
    ]
    if not places or not evidence.maps:
        return None
    place = max(places, key=lambda one: float(evidence.shares[row, first + one]))
    png = draw(layout.signals[place], evidence.scored[place][row], evidence.maps[place][row])
    return {"feature": layout.signals[place].name, "png": png}


def draw(signal: SignalInput, values: Floats, shares: Floats) -> bytes:
    """Draw a PNG of two panels: the signal, and the share of each of its places in the score.

    Args:
        signal: of one of KINDS.
        values: the encoded signal, float32 [*shape]. The least value is black, the largest white.
        shares: the share of each value in the score, [*shape]. A share below 0 counts as 0.
    """
    if signal.masked:
        values, shares = values[:-1], shares[:-1]
    pixels, heat = _lay_out(signal.kind, values, np.maximum(shares, 0))
    panels = [_enlarge(panel, signal.kind) for panel in (pixels, _colour(heat))]
    # The second panel goes below a wide one.
    beside = pixels.shape[1] <= 2 * pixels.shape[0]
    image = Image.fromarray(_join(panels, axis=1 if beside else 0))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _lay_out(kind: str, values: Floats, shares: Floats) -> tuple[Pixels, Floats]:
    """The signal in colour, [height, width, 3], and one share per pixel, [height, width]."""
    if kind == "series":  # one line per channel, one column per step
        lowest = values.min(axis=1, keepdims=True)
        spread = np.ptp(values, axis=1, keepdims=True)
        return _to_grey((values - lowest) / np.where(spread > 0, spread, 1)), shares
    if kind == "video":  # the frames from left to right
        values = np.concatenate(list(values.transpose(1, 0, 2, 3)), axis=2)
        shares = np.concatenate(list(shares.transpose(1, 0, 2, 3)), axis=2)
    lit = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    colours = _to_grey(lit[0]) if len(lit) != 3 else _to_bytes(lit.transpose(1, 2, 0))
    return colours, shares.sum(axis=0)


def _to_grey(lit: Floats) -> Pixels:
    return np.repeat(_to_bytes(lit)[:, :, None], 3, axis=2)


def _to_bytes(lit: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(lit, 0, 1) * 255).astype(np.uint8)
    return pixels


def _colour(heat: Floats) -> Pixels:
    """Colour shares from black for none to light yellow for the largest."""
    peak = float(heat.max(initial=0.0))
    place = np.clip(heat / peak if peak > 0 else heat, 0, 1) * (len(_STOPS) - 1)
    below = np.minimum(place.astype(int), len(_STOPS) - 2)
    share = (place - below)[..., None]
    mixed = _STOPS[below] * (1 - share) + _STOPS[below + 1] * share
    pixels: Pixels = np.rint(mixed).astype(np.uint8)
    return pixels


def _enlarge(pixels: Pixels, kind: str) -> Pixels:
    height, width = pixels.shape[:2]
    factors = [-(-_LEAST_SIDE // side) for side in (height, width)]
    if kind != "series":  # a picture keeps its proportions; the lines of a series may be thick
        factors = [min(max(factors), _MOST_SIDE // max(height, width))] * 2
    down, across = (max(1, factor) for factor in factors)
    return pixels.repeat(down, axis=0).repeat(across, axis=1)


def _join(panels: list[Pixels], axis: int) -> Pixels:
    first, second = panels
    shape = list(first.shape)
    shape[axis] = _GAP
    return np.concatenate([first, np.full(shape, 255, np.uint8), second], axis=axis)
