"""Pictures of flagged signals are bright where the score came from."""

import io

import numpy as np
import pytest
from PIL import Image

from models.explaining.pictures import draw
from models.layout import SignalInput

SIGNALS = {
    "grey": SignalInput("photo", "image", (1, 28, 28)),
    "colour": SignalInput("photo", "image", (3, 20, 30)),
    "series": SignalInput("load", "series", (5, 64), masked=True),
    "video": SignalInput("clip", "video", (1, 4, 16, 16)),
}


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_picture_is_a_small_png(name: str) -> None:
    signal = SIGNALS[name]
    rng = np.random.default_rng(0)
    values = rng.normal(size=signal.shape).astype(np.float32)
    made = draw(signal, values, np.abs(values))
    assert made.startswith(b"\x89PNG")
    assert min(opened(made).shape[:2]) >= 64
    assert len(made) < 40_000


def test_the_second_panel_is_bright_where_the_share_is_large() -> None:
    signal = SIGNALS["grey"]
    shares = np.zeros(signal.shape, np.float32)
    shares[0, 5, 20] = 3.0
    made = opened(draw(signal, np.zeros(signal.shape, np.float32), shares))
    panel = made[:, (made.shape[1] + 4) // 2 :].sum(axis=2)
    row, column = np.unravel_index(panel.argmax(), panel.shape)
    assert (int(row) * 28 // panel.shape[0], int(column) * 28 // panel.shape[1]) == (5, 20)
    assert (panel > panel.min()).mean() == pytest.approx(1 / 784, rel=0.01)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_constant_signal_without_shares_can_be_drawn(name: str) -> None:
    zeros = np.zeros(SIGNALS[name].shape, np.float32)
    assert opened(draw(SIGNALS[name], zeros, zeros - 1)).size > 0


def test_the_mask_of_a_series_is_not_drawn() -> None:
    signal = SIGNALS["series"]
    values = np.zeros(signal.shape, np.float32)
    shares = values.copy()
    shares[-1] = 5.0  # of the mask
    made = opened(draw(signal, values, shares))
    heat = made[made.shape[0] // 2 + 4 :]
    assert (heat == heat[0, 0]).all()
