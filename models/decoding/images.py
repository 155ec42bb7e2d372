"""Images and lists of images, from the bytes of files that anybody may have written.

The size that a file declares is checked before a pixel is decoded. What is no image, or only a
part of one, is `unparsable`.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyarrow as pa

from models.decoding.lists import find_lengths
from models.decoding.scalars import Bools, Cells, find_nulls

Pixels = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "WEBP")  # Pillow's other decoders see no byte of a lake
MOST_PIXELS = 50_000_000  # a photo of the largest phones; 150 MB when decoded
# Parts of red, green and blue in a grey, in thousandths (ITU-R BT.601), as Pillow has them.
_GREY = np.array([299, 587, 114], np.uint32)


class NotAnImage(ValueError):
    """The bytes are no image of `FORMATS`, too large a one, or a part of one."""


def decode_images(array: pa.Array, size: int, channels: int) -> Cells:
    """uint8 [rows, channels, size, size]; rule: unparsable."""
    pixels = np.zeros((len(array), channels, size, size), np.uint8)
    wrong = np.zeros(len(array), bool)
    for row, raw in enumerate(array):
        if raw.is_valid:
            wrong[row] = not _decode_into(pixels[row], raw)
    return _cells(array, pixels, wrong)


def decode_videos(array: pa.Array, frames: int, size: int, channels: int) -> Cells:
    """uint8 [rows, channels, frames, size, size]; rule: unparsable, of any frame, or of none.

    Frames are taken evenly from the first to the last; a list of fewer repeats some.
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
    return _cells(array, pixels, wrong)


def to_grey(pixels: Pixels) -> Pixels:
    """[rows, 3, ...] to [rows, 1, ...]; pixels that are grey stay as they are."""
    parts = _GREY.reshape(1, 3, *[1] * (pixels.ndim - 2))
    mixed = (pixels * parts).sum(1, keepdims=True, dtype=np.uint32)
    return np.asarray((mixed + 500) // 1000, np.uint8)


def is_coloured(pixels: Pixels) -> Bools:
    """Rows [rows] of [rows, 3, ...] that have a pixel that is not grey."""
    coloured = (pixels[:, :1] != pixels[:, 1:]).reshape(len(pixels), -1)
    return np.asarray(coloured.any(1))


def read_image(data: bytes, size: int, channels: int) -> Pixels:
    """uint8 [channels, size, size], the whole image squeezed into a square.

    Raises `NotAnImage`.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise NotAnImage(f"{image.width} x {image.height} pixels")
            # A JPEG is decoded at the smallest of its scales that is no smaller than needed.
            image.draft(None, (2 * size, 2 * size))
            plain = _plain(image).resize((size, size), PIL.Image.Resampling.BILINEAR)
    except MemoryError:
        raise
    except Exception as error:  # decoders meet hostile bytes with whatever they stumble over
        raise NotAnImage(str(error)) from error
    pixels = np.asarray(plain)
    colours = np.repeat(pixels[None], 3, 0) if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if channels == 3:
        return colours
    return np.asarray(to_grey(colours[None])[0])


def _plain(image: PIL.Image.Image) -> PIL.Image.Image:
    """In mode L or RGB; transparency is left out."""
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow's own conversion would cut off
        high = np.asarray(image).astype(np.uint32) >> 8
        return PIL.Image.fromarray(high.astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")


def _decode_into(pixels: Pixels, raw: pa.Scalar) -> bool:
    """Fill [channels, size, size]; False where the bytes are no image."""
    try:
        pixels[:] = read_image(raw.as_py() or b"", pixels.shape[-1], len(pixels))
    except NotAnImage:
        return False
    return True


def _decode_frames(pixels: Pixels, raws: list[pa.Scalar], places: list[int]) -> bool:
    """Fill [channels, frames, size, size], decoding a repeated frame once."""
    for frame, raw in enumerate(raws):
        if frame and places[frame] == places[frame - 1]:
            pixels[:, frame] = pixels[:, frame - 1]
        elif not _decode_into(pixels[:, frame], raw):
            return False
    return True


def _cells(array: pa.Array, pixels: Pixels, wrong: Bools) -> Cells:
    problems: tuple[Any, ...] = ((wrong, "unparsable"),) if wrong.any() else ()
    pixels[wrong] = 0
    return Cells((), find_nulls(array), problems, signal=pixels)
