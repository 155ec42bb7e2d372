"""A flag's signal as a picture: what was seen, and beside it where the score came from."""

import io
from collections.abc import Collection
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.batch import Batch, Contributions, Layout, SignalInput

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

# Five stops of matplotlib's inferno: equal steps of it look equal, also in print.
_STOPS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float64
)
KINDS = ("series", "image", "spectrogram", "video")
_LEAST_SIDE = 112  # pixels that the shorter side of a panel is enlarged to, by whole factors
_MOST_SIDE = 448  # and the longer side at most
_GAP = 4  # white pixels between the panels


class Picture(TypedDict):
    """What a flag shows."""

    feature: str
    png: bytes


def draw_largest_share(
    layout: Layout, batch: Batch, told: Contributions, row: int, allowed: Collection[str]
) -> Picture | None:
    """A picture of the row's signal with the largest share, out of those that may be shown; None
    where there is none, or the detector does not say where in it the score came from."""
    first = len(layout.numeric) + len(layout.categories)
    places = [
        place
        for place, signal in enumerate(layout.signals)
        if signal.kind in KINDS and signal.name in allowed
    ]
    if not places or not told.maps:
        return None
    place = max(places, key=lambda one: float(told.shares[row, first + one]))
    values, shares = batch.signals[place][row], told.maps[place][row]
    png = draw(
        layout.signals[place],
        values.detach().float().cpu().numpy(),
        shares.detach().float().cpu().numpy(),
    )
    return {"feature": layout.signals[place].name, "png": png}


def draw(signal: SignalInput, values: Floats, shares: Floats) -> bytes:
    """PNG of two panels: the signal, and where in it the score came from.

    Args:
        signal: of kind series, image or video.
        values: its encoded numbers, float32 [*shape], of any scale: shown from least to largest.
        shares: what each of them added to the score, [*shape]; below 0 counts as 0.
    """
    if signal.masked:
        values, shares = values[:-1], shares[:-1]
    seen, heat = _laid_out(signal.kind, values, np.maximum(shares, 0))
    warm = _coloured(heat)
    panels = [_enlarged(panel, signal.kind) for panel in (seen, warm)]
    # A wide panel has the other below it.
    beside = seen.shape[1] <= 2 * seen.shape[0]
    image = Image.fromarray(_joined(panels, axis=1 if beside else 0))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _laid_out(kind: str, values: Floats, shares: Floats) -> tuple[Pixels, Floats]:
    """The signal in colour [height, width, 3], and one share a pixel [height, width]."""
    if kind == "series":  # a line a channel, a column a step
        lowest = values.min(axis=1, keepdims=True)
        spread = np.ptp(values, axis=1, keepdims=True)
        return _grey((values - lowest) / np.where(spread > 0, spread, 1)), shares
    if kind == "video":  # frame after frame, from left to right
        values = np.concatenate(list(values.transpose(1, 0, 2, 3)), axis=2)
        shares = np.concatenate(list(shares.transpose(1, 0, 2, 3)), axis=2)
    lit = (values - values.min()) / max(float(np.ptp(values)), 1e-12)
    colours = _grey(lit[0]) if len(lit) != 3 else _bytes(lit.transpose(1, 2, 0))
    return colours, shares.sum(axis=0)


def _grey(lit: Floats) -> Pixels:
    return np.repeat(_bytes(lit)[:, :, None], 3, axis=2)


def _bytes(lit: npt.NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(np.clip(lit, 0, 1) * 255).astype(np.uint8)
    return pixels


def _coloured(heat: Floats) -> Pixels:
    """From black for nothing to light yellow for the largest share."""
    peak = float(heat.max(initial=0.0))
    place = np.clip(heat / peak if peak > 0 else heat, 0, 1) * (len(_STOPS) - 1)
    below = np.minimum(place.astype(int), len(_STOPS) - 2)
    share = (place - below)[..., None]
    mixed = _STOPS[below] * (1 - share) + _STOPS[below + 1] * share
    pixels: Pixels = np.rint(mixed).astype(np.uint8)
    return pixels


def _enlarged(pixels: Pixels, kind: str) -> Pixels:
    height, width = pixels.shape[:2]
    factors = [-(-_LEAST_SIDE // side) for side in (height, width)]
    if kind != "series":  # whose lines may be thick: only of a picture both sides grow alike
        factors = [min(max(factors), _MOST_SIDE // max(height, width))] * 2
    down, across = (max(1, factor) for factor in factors)
    return pixels.repeat(down, axis=0).repeat(across, axis=1)


def _joined(panels: list[Pixels], axis: int) -> Pixels:
    first, second = panels
    shape = list(first.shape)
    shape[axis] = _GAP
    return np.concatenate([first, np.full(shape, 255, np.uint8), second], axis=axis)
