"""Reasons of signals and tokens: the place, its observed and its expected value."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from models.batch import Contributions
from models.columns import Audio, FeatureColumn, Image, Sequence, Text, Vector, Video
from models.decoding.texts import find_grams
from models.explaining.explainer import Explainer
from models.explaining.places import escape
from tests.models.flows import batch_of, fit
from tests.models.media import image_bytes, plain_image, tone


def reason(*args: Any, **options: Any) -> tuple[str, str]:
    """(observed, expected) of `find_reason`."""
    found = find_reason(*args, **options)
    return found["observed"], found["expected"]


def find_reason(
    column: FeatureColumn,
    training: Any,
    observed: Any,
    expected: Any,
    shares: Tensor | None = None,
    feature: str | None = None,
    sensitive: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The reason of a column whose map of contributions, if any, is `shares`."""
    kind = pa.array(training).type
    encoder = fit(pa.table({"x": pa.array(training, kind)}), (column,))
    seen, wanted = (
        encoder.extract(batch_of(pa.table({"x": pa.array([value], kind)})))
        for value in (observed, expected)
    )
    layout = encoder.layout
    names = [*(s.name for s in layout.signals), *(t.name for t in layout.tokens)]
    place = names.index(feature) if feature else 0
    shapes = [signal.shape for signal in layout.signals]
    shapes += [(tokens.length,) for tokens in layout.tokens]
    maps = [torch.zeros(1, *shape) for shape in shapes]
    if shares is not None:
        maps[place] = shares[None]
    total = torch.zeros(1, len(layout.features))
    total[0, layout.features.index(names[place])] = 1
    places = tuple(maps) if shares is not None else ()
    told = Contributions(total, encoder(wanted), places).to_evidence(encoder(seen))
    found: dict[str, Any]
    (found,) = Explainer(encoder).explain(seen, told, 1, sensitive).to_pylist()[0]
    assert found["feature"] == names[place]
    return found


def box(shape: tuple[int, ...], *places: slice | int) -> Tensor:
    shares = torch.zeros(shape)
    shares[places] = 1.0
    return shares


def test_an_image_shows_the_place_with_the_largest_share_and_its_brightness() -> None:
    pixels = np.full((16, 16), 100)
    pixels[12:16, 3:9] = 240
    training = [plain_image(60, 16), plain_image(140, 16)]
    part = box((1, 16, 16), 0, slice(12, 16), slice(3, 9))
    found = reason(Image("x", 16), training, image_bytes(pixels), plain_image(100, 16), part)
    assert found == (
        "brightness 240 of 255 at rows 12–15, columns 3–8 of 16 × 16",
        "brightness 100 of 255",
    )


def test_without_a_map_the_place_is_the_one_that_differs_most_from_the_expected() -> None:
    pixels = np.full((16, 16), 100)
    pixels[2, 5] = 250
    training = [plain_image(60, 16), plain_image(140, 16)]
    found = reason(Image("x", 16), training, image_bytes(pixels), plain_image(100, 16))
    assert found[0] == "brightness 250 of 255 at row 2, column 5 of 16 × 16"


def test_a_video_shows_its_frames() -> None:
    clip = [plain_image(10), plain_image(10), plain_image(200), plain_image(200)]
    part = box((1, 4, 8, 8), 0, slice(2, 4))
    found = reason(Video("x", 4, 8), [clip], clip, [plain_image(10)] * 4, part)
    assert found[0] == "brightness 200 of 255 at frames 2–3, rows 0–7, columns 0–7 of 8 × 8"


def test_a_recording_shows_seconds_and_hertz() -> None:
    column = Audio("x", seconds=0.4, mels=20)
    found = reason(
        column, [tone(500), tone(900)], tone(500), tone(900), box((1, 20, 38), 0, 4, slice(10, 20))
    )
    assert found[0].endswith(" dB at 0.10–0.21 s, 306–506 Hz")
    assert found[1].endswith(" dB")


def test_a_vector_shows_the_element() -> None:
    training = [[1.0, 2.0], [3.0, 8.0]]
    found = reason(Vector("x"), training, [1.0, 99.5], [1.0, 4.0], torch.tensor([0.0, 1.0]))
    assert found == ("99.5 in element 1", "4")


def test_a_series_shows_the_steps_of_the_channel() -> None:
    column = Sequence("x", length=6)
    steps = pa.list_(pa.list_(pa.float64(), 2))
    training = pa.array([[[1.0, 10.0]] * 6, [[3.0, 30.0]] * 6], steps)
    observed = [[1.0, 10.0]] * 3 + [[1.0, 50.0], [1.0, 70.0]] + [[1.0, 10.0]]
    found = reason(column, training, observed, training[0], box((3, 6), 1, slice(3, 5)))
    assert found == ("60 at steps 3–4 of channel 1", "10")
    gone = reason(column, training, observed[:2], training[0], box((3, 6), 2, slice(0, 4)))
    assert gone == ("no data at steps 0–3", "data")


def test_events_are_shown_with_their_neighbours() -> None:
    column = Sequence("x", length=6)
    usual = ["open", "read", "read", "close"]
    odd = ["open", "read", "erase\x1b", "close"]
    training = [usual, usual, ["erase\x1b"]]
    found = reason(column, training, odd, usual, box((6,), 4))
    assert found == ("open, read, [erase\\x1b], close at step 4", "read")
    padded = reason(column, training, odd, [], box((6,), 4))
    assert padded[1] == "something else"


def test_a_text_is_shown_around_the_place_with_unprintable_characters_escaped() -> None:
    text = "login ok from \x1b[2J host"
    found = reason(Text("x", 32), ["login ok"], text, "login", box((32,), slice(14, 18)), "x")
    assert found == ("gin ok from [\\x1b[2J] host", "something else")


def test_a_bin_shows_the_words_that_are_hashed_to_it() -> None:
    place = int(find_grams(["prize"], 64).bin[-1])
    found = reason(
        Text("x", 32, 64), ["meet me", "prize"], "win a prize", "meet me", box((64,), place)
    )
    assert "'prize'" in found[0]
    assert found[1].startswith("weight ")


def test_a_sensitive_signal_shows_no_value() -> None:
    found = reason(
        Vector("x"), [[1.0], [3.0]], [9.0], [1.0], torch.ones(1), sensitive=frozenset({"x"})
    )
    assert found == ("[sensitive]", "[sensitive]")


def test_unprintable_characters_are_escaped() -> None:
    assert escape("a\u202eb\nc") == "a\\u202eb\\nc"


def test_what_is_usual_of_a_place_stands_beside_it() -> None:
    steps = pa.list_(pa.list_(pa.float64(), 2))
    training = pa.array([[[1.0, 10.0]] * 6, [[3.0, 30.0]] * 6], steps)
    observed = [[1.0, 10.0]] * 5 + [[1.0, 70.0]]
    part = box((3, 6), 1, 5)
    series = find_reason(Sequence("x", length=6), training, observed, training[0], part)
    assert series["usual"] == "mean 20, mostly 0 to 40"
    images = [plain_image(60, 16), plain_image(140, 16)]
    image = find_reason(Image("x", 16), images, plain_image(240, 16), images[0])
    assert image["usual"] == (
        "mean brightness 100 of 255, mostly brightness 20 of 255 to brightness 180 of 255"
    )
    vector = find_reason(Vector("x"), [[1.0, 2.0], [3.0, 8.0]], [1.0, 99.5], [1.0, 4.0])
    assert vector["usual"].startswith("mean 5, mostly ")
    hidden = find_reason(
        Vector("x"), [[1.0, 2.0], [3.0, 8.0]], [1.0, 9.5], [1.0, 4.0], sensitive=frozenset({"x"})
    )
    assert hidden["usual"] is None
