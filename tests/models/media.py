"""Makes files of images and recordings, and columns of every kind of signal."""

import io
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import soundfile


def image_bytes(pixels: Any, form: str = "PNG") -> bytes:
    """A file of uint8 pixels [height, width] or [height, width, 3 or 4]."""
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(pixels, np.uint8)).save(file, form)
    return file.getvalue()


def plain_image(level: int, size: int = 8, form: str = "PNG") -> bytes:
    return image_bytes(np.full((size, size), level), form)


def colour_image(red: int, green: int, blue: int, size: int = 8) -> bytes:
    return image_bytes(np.tile(np.array([red, green, blue]), (size, size, 1)))


def tone(hertz: float, seconds: float = 0.5, rate: int = 8000, form: str = "WAV") -> bytes:
    time = np.arange(round(seconds * rate)) / rate
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.sin(2 * np.pi * hertz * time), rate, format=form)
    return file.getvalue()


def mixed(rows: int = 60, seed: int = 0) -> pa.Table:
    """A vector, a series, events, an image, a text, a recording and a video in each row."""
    rng = np.random.default_rng(seed)
    words = ["disk", "full", "user", "login", "from", "host"]
    lengths = rng.integers(1, 9, rows)
    return pa.table(
        {
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(rng.normal(5, 2, rows * 4), pa.float32()), 4
            ),
            "series": [rng.normal(3, 1, n).tolist() for n in lengths],
            "events": [rng.choice(["open", "read", "close"], n).tolist() for n in lengths],
            "picture": [image_bytes(rng.integers(0, 256, (12, 10))) for _ in range(rows)],
            "message": [" ".join(rng.choice(words, 5)) for _ in range(rows)],
            "call": [tone(float(h)) for h in rng.integers(200, 900, rows)],
            "clip": [[plain_image(int(v)) for v in rng.integers(0, 256, 3)] for _ in range(rows)],
        }
    )
