"""Images and videos from real files: shapes, scaling and refusals."""

import struct
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from models.columns import Image, Video
from models.decoding.images import MOST_PIXELS, read_image, to_grey
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from tests.models.flows import batch_of, fit, one_column
from tests.models.media import colour_image, image_bytes, plain_image


def extract(encoder: Encoder, values: Any) -> Any:
    return encoder.extract(batch_of(pa.table({encoder.required[0]: values})))


def problems(encoder: Encoder, values: Any) -> list[tuple[int, str]]:
    return [(problem.row, problem.rule) for problem in extract(encoder, values).problems]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_images_of_any_size_become_pixels_of_one_size(form: str) -> None:
    pixels = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (50, 1))
    encoder = one_column([image_bytes(pixels, form)], Image("i", size=8))
    assert encoder.layout.signals[0].shape == (1, 8, 8)
    raw = extract(encoder, [image_bytes(pixels, form)]).signals[0]
    assert raw.dtype == np.uint8
    assert raw.shape == (1, 64)
    row = raw.reshape(8, 8)[4].astype(int)
    assert (np.diff(row) > 20).all()  # darker on the left


@pytest.mark.parametrize(
    ("pixels", "seen"),
    [
        (np.full((4, 4), 100), [100, 100, 100]),
        (np.tile([200, 100, 50], (4, 4, 1)), [200, 100, 50]),
        (np.tile([200, 100, 50, 10], (4, 4, 1)), [200, 100, 50]),
    ],
)
def test_grey_colour_and_transparent_images_are_read(pixels: Any, seen: list[int]) -> None:
    assert read_image(image_bytes(pixels), 2, 3)[:, 0, 0].tolist() == seen


def test_the_channels_are_learned_from_all_images_of_training() -> None:
    greys = [plain_image(10), plain_image(200)]
    assert one_column(greys, Image("i", 4)).layout.signals[0].shape == (1, 4, 4)
    encoder = one_column([*greys, colour_image(255, 0, 0)], Image("i", 4))
    assert encoder.layout.signals[0].shape == (3, 4, 4)
    forced = one_column([colour_image(255, 0, 0)], Image("i", 4, channels=1))
    assert extract(forced, [colour_image(255, 0, 0)]).signals[0][0, 0] == 76  # 0.299 of 255
    assert to_grey(np.array([[[7]], [[7]], [[7]]], np.uint8)[None, :, :, 0]).item() == 7


def test_images_are_scaled_by_channel_on_the_device() -> None:
    encoder = one_column([colour_image(10, 100, 0), colour_image(30, 200, 0)], Image("i", 4))
    encoded = encoder(extract(encoder, [colour_image(30, 100, 0)])).signals[0]
    assert encoded.dtype == torch.float32
    assert encoded[0, :, 0, 0].tolist() == [1, -1, 0]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that declares this many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99))


HOSTILE = {
    "empty": b"",
    "text": b"GIF89a is no PNG",
    "truncated": image_bytes(np.random.default_rng(0).integers(0, 255, (40, 40)))[:700],
    "header only": plain_image(3)[:20],
    "bomb": bomb(MOST_PIXELS // 1000, 1001),
    "larger bomb": bomb(100_000, 100_000),
    "another format": image_bytes(np.zeros((4, 4)), "BMP"),
    "short of pixels": bomb(400, 400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bytes_that_are_not_an_image_are_a_problem(name: str) -> None:
    encoder = one_column([plain_image(3), plain_image(9)], Image("i", 4))
    found = extract(encoder, [plain_image(3), HOSTILE[name], plain_image(9)])
    assert [(p.row, p.rule) for p in found.problems] == [(1, "unparsable")]
    assert not found.signals[0][1].any()


def test_a_null_image_is_a_problem_unless_training_had_nulls() -> None:
    assert problems(one_column([plain_image(3)], Image("i", 4)), [None, plain_image(3)]) == [
        (0, "unexpected_null")
    ]
    encoder = one_column([plain_image(30), None, plain_image(90)], Image("i", 4))
    encoded = encoder(extract(encoder, [None, plain_image(90)]))
    assert encoded.numeric.tolist() == [[1.0], [0.0]]
    assert encoded.signals[0][:, 0, 0, 0].tolist() == [0.0, 1.0]


def test_merging_the_fits_of_two_halves_equals_fitting_all_images() -> None:
    rng = np.random.default_rng(0)
    images = [image_bytes(rng.integers(0, 256, (9, 9, 3))) for _ in range(12)]
    images += [plain_image(int(level)) for level in rng.integers(0, 256, 12)]
    clips = [images[i : i + 3] for i in range(24)]
    table = pa.table({"i": images, "c": clips})
    columns = (Image("i", 8), Video("c", 2, 8))
    parts = [EncoderFit(columns, table.schema) for _ in range(2)]
    for part, rows in zip(parts, (table.slice(12), table.slice(0, 12)), strict=True):
        part.update(batch_of(rows))
    merged = EncoderFit.from_bytes(parts[0].to_bytes())
    merged.merge(EncoderFit.from_bytes(parts[1].to_bytes()))
    whole, encoder = fit(table, columns), merged.finish()
    assert encoder.layout == whole.layout
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(encoder.state_dict()[name], tensor, msg=name)


def test_frames_are_spaced_evenly_and_repeated_if_there_are_few() -> None:
    clips = [[plain_image(level) for level in range(0, 250, 10)], [plain_image(70)]]
    encoder = one_column(clips, Video("c", frames=5, size=4))
    assert encoder.layout.signals[0].shape == (1, 5, 4, 4)
    raw = extract(encoder, clips).signals[0].reshape(2, 5, 16)[:, :, 0]
    assert raw.tolist() == [[0, 60, 120, 180, 240], [70] * 5]


def test_a_video_with_a_broken_frame_or_none_is_a_problem() -> None:
    encoder = one_column([[plain_image(1)]], Video("c", frames=2, size=4))
    broken = [[plain_image(1), b"?"], [], [plain_image(1), None], [plain_image(1)]]
    assert problems(encoder, broken) == [(row, "unparsable") for row in range(3)]
