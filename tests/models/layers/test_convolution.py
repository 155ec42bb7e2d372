"""Detectors that convolve or describe signals, beyond the contract."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.batch import Batch
from models.contract.layouts import IMAGE, SERIES, TABLE, far_image_rows, image_rows, series_rows
from models.detectors.autoencoder import PRIOR, Autoencoder
from models.detectors.catalog import CATALOG
from models.detectors.deep_svdd import DeepSVDD
from models.detectors.detector import Detector
from models.detectors.gan import GAN
from models.layers.convolution import Painters, Pyramid, Towers, repeat_halved
from models.layers.gradient_histograms import Histograms
from models.layout import Layout, NumericInput, SignalInput
from models.refusal import Refusal
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions

SHAPES = {
    "a series": SignalInput("s", "series", (2, 13)),
    "a series of one step": SignalInput("s", "series", (2, 1)),
    "an image": SignalInput("s", "image", (1, 28, 28)),
    "a narrow image": SignalInput("s", "image", (3, 1, 50)),
    "a spectrogram": SignalInput("s", "spectrogram", (1, 40, 51)),
    "a video": SignalInput("s", "video", (1, 5, 9, 12)),
}
SIDES = [(n,) for n in range(1, 40)] + [(1, 50), (28, 28), (40, 51), (5, 9, 12), (7, 3, 33)]
ON_SIGNALS = ["cnn_classifier", "convolutional_autoencoder", "deep_svdd", "gan", "hog_knn"]


@pytest.mark.parametrize("sides", SIDES)
def test_halved_sides_are_enlarged_as_torch_does_to_the_bit(sides: tuple[int, ...]) -> None:
    kind = {1: "series", 2: "image", 3: "video"}[len(sides)]
    pyramid = Pyramid.of(SignalInput("s", kind, (1, *sides)), 2)  # type: ignore[arg-type]
    for large, small in pairwise(pyramid.sides):
        values = torch.randn(3, 2, *small)
        assert torch.equal(repeat_halved(values, large), F.interpolate(values, large))


def alone(signal: SignalInput, rows: int, seed: int = 0) -> tuple[Layout, Batch]:
    """A layout of this signal only, with random rows."""
    values = torch.randn(rows, *signal.shape, generator=torch.Generator().manual_seed(seed))
    codes = torch.zeros(rows, 0, dtype=torch.int64)
    labels = (torch.arange(rows) % 2).float()
    return Layout((), (), (signal,)), Batch(torch.zeros(rows, 0), codes, labels, (values,))


@pytest.mark.parametrize("signal", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", ON_SIGNALS)
def test_a_signal_of_any_size_and_dimension_will_do(name: str, signal: SignalInput) -> None:
    layout, rows = alone(signal, 6)
    detector = CATALOG.build(
        name, layout, {"sample_rows": 10} if name == "hog_knn" else {"channels": 2}
    )
    if detector.learns == "sample":
        detector.fit(rows, seed=0)
    else:
        detector.prepare(3, 6)
        detector(rows).mean().backward()
        detector.calibrate([rows])
    detector.eval()
    assert torch.isfinite(detector.score(rows)).all()
    found = detector.contributions(rows)
    assert found.maps[0].shape == (6, *signal.shape)
    assert found.expected.signals[0].shape == (6, *signal.shape)


@pytest.mark.parametrize("signal", SHAPES.values(), ids=SHAPES)
def test_maps_shrink_to_four_places_a_side_and_channels_grow(signal: SignalInput) -> None:
    pyramid = Pyramid.of(signal, 8)
    assert max(pyramid.sides[-1]) <= 4
    assert all(len(sides) == len(signal.shape) - 1 for sides in pyramid.sides)
    assert all(a <= b for a, b in pairwise(pyramid.channels[1:]))


def test_a_large_image_costs_no_more_channels_than_a_small_one_twice_over() -> None:
    pyramid = Pyramid.of(SignalInput("s", "image", (3, 1000, 700)), 16)
    assert pyramid.channels[-1] == 128
    assert pyramid.width <= 128 * 16


def test_painters_give_back_columns_in_the_order_that_towers_take_them() -> None:
    width = 1 + 90 + 3 + 4  # exposure, photo, place, one-hot camera
    towers = Towers(IMAGE, width, 5, channels=2, widths=(6,))
    painters = Painters(IMAGE, 5, width, channels=2, widths=(6,))
    rows = torch.randn(7, width)
    assert painters(towers(rows)).shape == rows.shape
    for place, painted in ((1 + 45, True), (0, False), (1 + 90 + 1, False), (width - 1, False)):
        reached = [
            bool(p.grad is not None and p.grad.abs().sum() > 0) for p in _reached(painters, place)
        ]
        assert reached == [painted, not painted], place


def _reached(painters: Painters, place: int) -> list[Tensor]:
    """The last weights of painter and dense layers, after the gradient of one column."""
    painters.zero_grad()
    painters(torch.ones(2, 5))[:, place].sum().backward()
    return [painters.painters[0].layers[-1].weight, painters.dense[-1].weight]  # type: ignore[union-attr, index, list-item]


@pytest.mark.parametrize("name", ["convolutional_autoencoder", "cnn_classifier", "hog_knn"])
def test_a_table_is_refused_with_what_is_lacking(name: str) -> None:
    with pytest.raises(
        Refusal, match=r"expected a series, an image.*found other columns: duration"
    ):
        CATALOG.build(name, TABLE, {})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("cnn_classifier", "channels", 0),
        ("convolutional_autoencoder", "channels", 0),
        ("deep_svdd", "widths", []),
        ("deep_svdd", "channels", 0),
        ("deep_svdd", "outputs", 0),
        ("deep_svdd", "reconstruction", 0.0),
        ("deep_svdd", "steps", 0),
        ("gan", "channels", 0),
        ("gan", "latent_weight", 0.0),
        ("gan", "adversarial_weight", -1.0),
        ("hog_knn", "cells", 0),
    ],
)
def test_an_option_out_of_range_is_refused_with_its_name(
    name: str, option: str, value: object
) -> None:
    with pytest.raises(Refusal, match=rf"\.{option}: expected "):
        CATALOG.configure(name, {option: value})


# --- padding ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["autoencoder", "convolutional_autoencoder", "gan"])
def test_the_padding_of_a_series_has_no_share(name: str) -> None:
    detector = CATALOG.build(name, SERIES, {"widths": [8]})
    detector.calibrate([series_rows(64, seed=1)])
    series = series_rows(64, seed=2).signals[0]
    map_ = detector.eval().contributions(series_rows(64, seed=2)).maps[0]
    padded = (series[:, 2:] == 0).expand(-1, 2, -1)
    assert map_[:, :2][padded].abs().max() == 0
    assert map_[:, 2].abs().max() == 0


def test_a_step_that_is_seldom_there_is_judged_on_the_rows_that_have_it() -> None:
    detector = CATALOG.build("autoencoder", SERIES, {"widths": [8]})
    assert isinstance(detector, Autoencoder)
    rows = series_rows(400, seed=1)
    detector.calibrate([rows])
    with torch.no_grad():
        squares = detector._measure_residuals(rows)[0].double()
    there = rows.signals[0][:, 2] > 0  # [rows, steps]
    usual = squares[1:25].sum() / (2 * there.sum())  # of both channels
    first = squares[1][there[:, 0]]  # most rows lack the first step
    expected = (first.sum() + PRIOR * usual) / (len(first) + PRIOR)
    assert float(detector.variance[1]) == pytest.approx(float(expected), rel=1e-5)


def test_an_image_that_is_wrong_in_one_place_scores_above_one_that_is_a_little_off() -> None:
    layout, rows = alone(SHAPES["an image"], 40)
    detector = CATALOG.build("autoencoder", layout, {"widths": [8]})
    detector.calibrate([rows])
    off = rows._replace(signals=(1.2 * rows.signals[0],))
    spot = rows.signals[0].clone()
    spot[:, :, 10:13, 10:13] = 20.0
    assert detector.score(rows._replace(signals=(spot,))).min() > detector.score(off).max()


# --- collapse --------------------------------------------------------------------------------


def learned(detector: Detector, rows: int = 400, epochs: int = 2) -> Detector:
    train, rest = image_rows(rows, seed=1), image_rows(100, seed=2)
    learn(detector, train, rest, TrainingOptions(epochs=epochs, learning_rate=3e-3))
    return detector


@pytest.mark.thorough
def test_deep_svdd_does_not_send_every_row_to_the_centre() -> None:
    detector = learned(
        CATALOG.build("deep_svdd", IMAGE, {"channels": 4, "widths": [16], "outputs": 8})
    )
    assert isinstance(detector, DeepSVDD)
    assert [n for n, _ in detector.encoder.named_parameters() if "bias" in n] == []
    assert detector.centre.abs().min() >= 0.1
    normal = score_rows(detector, image_rows(300, seed=3))
    far = score_rows(detector, far_image_rows(50, seed=4))
    assert normal.std() > 0.01 * normal.mean()
    assert far.min() > 10 * normal.median()


def test_the_centre_is_the_same_for_the_same_weights_and_never_moves() -> None:
    centres = []
    for _ in range(2):
        torch.manual_seed(5)
        centres.append(CATALOG.build("deep_svdd", TABLE, {}).get_buffer("centre"))
    assert torch.equal(*centres)
    detector = CATALOG.build("deep_svdd", IMAGE, {"channels": 4, "widths": [16]})
    before = detector.get_buffer("centre").clone()
    learned(detector, epochs=1)
    assert torch.equal(detector.get_buffer("centre"), before)


@pytest.mark.thorough
def test_the_generator_rebuilds_rows_that_differ_as_rows_that_differ() -> None:
    detector = learned(CATALOG.build("gan", IMAGE, {"channels": 4, "widths": [16]}))
    rows = image_rows(300, seed=3)
    expected = detector.contributions(rows).expected.signals[0]
    seen = rows.signals[0]
    assert expected.std(0).mean() > 0.5 * seen.std(0).mean()
    error = (expected - seen).square().mean()
    assert error < 0.5 * seen.var(0).mean()


@pytest.mark.thorough
def test_the_critic_cannot_grow_and_learns_against_the_generator() -> None:
    detector = learned(CATALOG.build("gan", IMAGE, {"channels": 4, "widths": [16]}), epochs=1)
    assert isinstance(detector, GAN)
    for layer in (detector.verdict, *detector.critic.dense):
        assert torch.linalg.matrix_norm(layer.weight, 2) < 1.1
    columns = detector.inputs(image_rows(20, seed=3)).detach()
    fake = columns.clone().requires_grad_()
    before = detector.verdict(detector.critic(columns)).detach()
    detector.zero_grad()
    detector._play_critic(columns, fake).sum().backward()  # type: ignore[no-untyped-call]
    assert fake.grad is not None
    # One step against the gradient, as the generator takes it, deceives the critic more.
    after = detector.verdict(detector.critic(columns - 1e-2 * fake.grad)).detach()
    assert (after - before).mean() > 0


# --- gradient histograms ---------------------------------------------------------------------


def test_a_slope_is_described_by_its_direction() -> None:
    histogram = Histograms(SignalInput("s", "image", (1, 8, 8)), cells=1)
    across = torch.arange(8.0)[None, None, None].expand(1, 1, 8, 8)
    found = histogram(across)[0, :8]
    assert found.argmax() == 0
    assert found[4] == 0
    down = histogram(across.transpose(2, 3))[0, :8]
    assert down.argmax() == 2


def test_what_moves_by_a_pixel_changes_its_description_less_than_its_pixels() -> None:
    histogram = Histograms(SignalInput("s", "image", (1, 28, 28)), cells=36)
    image = torch.zeros(1, 1, 28, 28)
    image[..., 8:20, 8:20] = 1
    moved = image.roll(1, 3)
    apart = (histogram(image) - histogram(moved)).norm() / histogram(image).norm()
    assert apart < 0.5 * (image - moved).norm() / image.norm()


def test_the_share_of_a_cell_goes_to_the_channel_and_places_that_it_describes() -> None:
    signal = SignalInput("s", "image", (2, 12, 12))
    layout, rows = alone(signal, 50)
    quiet = rows._replace(signals=(0.1 * rows.signals[0],))
    detector = CATALOG.build("hog_knn", layout, {"sample_rows": 50, "cells": 16})
    detector.fit(quiet, seed=0)
    spot = 0.1 * alone(signal, 1, seed=9)[1].signals[0]
    spot[0, 1, 8:11, 1:4] = 6.0
    row = quiet.take(slice(0, 1))._replace(signals=(spot,))
    map_ = detector.contributions(row).maps[0][0]
    assert map_[1].sum() > 2 * map_[0].sum()
    place = divmod(int(map_[1].argmax()), 12)
    assert 6 <= place[0] <= 11
    assert 0 <= place[1] <= 5


def test_numbers_beside_a_signal_count_in_the_neighbourhood() -> None:
    signal = SHAPES["a series"]
    layout = Layout((NumericInput("x", "real"),), (), (signal,))
    _, rows = alone(signal, 40)
    rows = rows._replace(numeric=torch.randn(40, 1))
    detector = CATALOG.build("hog_knn", layout, {"sample_rows": 40})
    detector.fit(rows, seed=0)
    far = rows._replace(numeric=rows.numeric + 50)
    assert detector.score(far).min() > detector.score(rows).max()
    assert (detector.contributions(far).shares.argmax(1) == 0).all()
