"""Decodes images and lists of images. The files may come from an attacker.

The size that a file declares is checked before a pixel is decoded. Bytes that are not a whole image
are `unparsable`.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyarrow as pa

from models.decoding.lists import find_lengths
from models.decoding.scalars import Bools, Cells, find_nulls
from models.masking import describe

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow's other decoders never run
MOST_PIXELS = 50_000_000  # the photos of the largest phones; 150 MB decoded
# Thousandths of red, green and blue in grey (ITU-R BT.601), as in Pillow.
_GREY = np.array([299, 587, 114], np.uint32)


class NotAnImage(ValueError):
    """Raised if the bytes are not a whole image of `FORMATS`, or if the image is too large."""


def decode_images(array: pa.Array, size: int, channels: int) -> Cells:
    """Decode to uint8 [rows, channels, size, size]. Rule: unparsable."""
    pixels = np.zeros((len(array), channels, size, size), np.uint8)
    wrong = np.zeros(len(array), bool)
    for row, raw in enumerate(array):
        if raw.is_valid:
            wrong[row] = not _decode_into(pixels[row], raw)
    return _make_cells(array, pixels, wrong)


def decode_videos(array: pa.Array, frames: int, size: int, channels: int) -> Cells:
    """Decode to uint8 [rows, channels, frames, size, size].

    Rule: unparsable, for a list without frames or with a frame that is not an image. The frames are
    spaced evenly from the first to the last; a shorter list repeats some.
    """
    pixels = np.zeros((len(array), channels, frames, size, size), np.uint8)
    wrong = np.zeros(len(array), bool)
    lengths, null = find_lengths(array), find_nulls(array)
    flat = array.flatten()
    start = 0
    for row, length in enumerate(lengths.tolist()):
        if length:
            places = np.rint(np.linspace(0, length - 1, frames)).astype(int).tolist()
            wrong[row] = not _decode_frames(pixels[row], [flat[start + p] for p in places], places)
        elif null is None or not null[row]:
            wrong[row] = True
        start += length
    return _make_cells(array, pixels, wrong)


def to_grey(pixels: Pixels) -> Pixels:
    """Convert [rows, 3, ...] to [rows, 1, ...]. Grey pixels keep their value."""
    parts = _GREY.reshape(1, 3, *[1] * (pixels.ndim - 2))
    mixed = (pixels * parts).sum(1, keepdims=True, dtype=np.uint32)
    return np.asarray((mixed + 500) // 1000, np.uint8)


def is_coloured(pixels: Pixels) -> Bools:
    """Which rows of [rows, 3, ...] have a pixel that is not grey."""
    coloured = pixels[:, :1] != pixels[:, 1:]
    return np.asarray(coloured.any(axis=tuple(range(1, coloured.ndim))))


def read_image(data: bytes, size: int, channels: int) -> Pixels:
    """Read uint8 [channels, size, size], the whole image resized to a square.

    Raises NotAnImage.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise NotAnImage(f"{image.width} x {image.height} pixels")
            # A JPEG is decoded at the smallest scale that is large enough.
            image.draft(None, (2 * size, 2 * size))
            plain = _to_plain(image).resize((size, size), PIL.Image.Resampling.BILINEAR)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything for hostile bytes
        raise NotAnImage(describe(error)) from error
    pixels = np.asarray(plain)
    colours = np.repeat(pixels[None], 3, 0) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if channels == 3:
        return colours
    return np.asarray(to_grey(colours[None])[0])


def _to_plain(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert to mode L or RGB. Transparency is left out."""
    if image.mode.startswith("I"):  # 16 bits per pixel, which Pillow would cut off
        high = np.asarray(image).astype(np.uint32) >> 8
        return PIL.Image.fromarray(high.astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def _decode_into(pixels: Pixels, raw: pa.Scalar) -> bool:
    """Fill [channels, size, size]. Returns False if the bytes are not an image."""
    try:
        pixels[:] = read_image(raw.as_py() or b"", pixels.shape[-1], len(pixels))
    except NotAnImage:
        return False
    return True


def _decode_frames(pixels: Pixels, raws: list[pa.Scalar], places: list[int]) -> bool:
    """Fill [channels, frames, size, size]. A repeated frame is decoded once."""
    for frame, raw in enumerate(raws):
        if frame and places[frame] == places[frame - 1]:
            pixels[:, frame] = pixels[:, frame - 1]
        elif not _decode_into(pixels[:, frame], raw):
            return False
    return True


def _make_cells(array: pa.Array, pixels: Pixels, wrong: Bools) -> Cells:
    problems: tuple[Any, ...] = ((wrong, "unparsable"),) if wrong.any() else ()
    pixels[wrong] = 0
    return Cells((), find_nulls(array), problems, signal=pixels)
