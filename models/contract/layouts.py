"""Small layouts of every kind of input, each with normal rows and rows far from them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.batch import Batch
from models.layout import CategoryInput, Layout, NumericInput, SignalInput, TokenInput


@dataclass(frozen=True)
class Given:
    """A layout, and the rows that detectors are tested on."""

    name: str
    layout: Layout
    normal: Callable[[int, int], Batch]  # (rows, seed): normal rows
    far: Callable[[int, int], Batch]  # (rows, seed): obvious anomalies
    odd: Callable[[Batch], Batch]  # the same rows with one odd feature
    odd_feature: int  # its position in `layout.features`
    huge: Callable[[Batch, float], Batch] | None  # the same rows with this number in one place
    rows: int  # normal rows that are enough for training
    epochs: int  # epochs that are enough, in batches of 128
    padded: int  # rows of a scorer's batch in the bit-equality tests


TABLE = Layout(
    numeric=(
        NumericInput("duration", "real"),
        NumericInput("bytes", "real"),
        NumericInput("packets", "real"),
        NumericInput("duration is null", "binary"),
        NumericInput("internal", "binary"),
    ),
    categories=(CategoryInput("protocol", 5), CategoryInput("service", 40, embedding=6)),
)
IMAGE = Layout(
    numeric=(NumericInput("exposure", "real"),),
    categories=(CategoryInput("camera", 4),),
    signals=(SignalInput("photo", "image", (1, 9, 10)), SignalInput("place", "vector", (3,))),
)
SERIES = Layout(
    numeric=(NumericInput("age", "real"),),
    categories=(),
    signals=(SignalInput("load", "series", (3, 12), masked=True),),
)
LONE = Layout((), (), SERIES.signals)
TOKENS = Layout(
    numeric=(NumericInput("hour", "real"),),
    categories=(),
    tokens=(TokenInput("events", 12, 10),),
)


def table_rows(rows: int, seed: int) -> Batch:
    """Three reals on a curve, two binaries, two related categories. Code 0 never occurs."""
    g = torch.Generator().manual_seed(seed)
    size = torch.randn(rows, generator=g)
    noise = 0.1 * torch.randn(rows, 2, generator=g)
    internal = (torch.rand(rows, generator=g) < 0.3).float()
    null = (torch.rand(rows, generator=g) < 0.2).float()
    reals = torch.stack([size, 0.9 * size + noise[:, 0], torch.tanh(size) + noise[:, 1]], 1)
    protocol = 2 + internal.long()
    service = 2 + 3 * protocol + torch.randint(0, 3, (rows,), generator=g)
    numeric = torch.cat([reals, null[:, None], internal[:, None]], 1)
    return Batch(numeric, torch.stack([protocol, service], 1), torch.zeros(rows))


def far_table_rows(rows: int, seed: int) -> Batch:
    """Distant reals, a null, and categories that normal rows do not have."""
    near = table_rows(rows, seed)
    numeric = near.numeric.clone()
    numeric[:, :4] = torch.tensor([8.0, -8.0, 8.0, 1.0])
    return Batch(numeric, torch.zeros_like(near.codes), torch.ones(rows))


def image_rows(rows: int, seed: int) -> Batch:
    """A gradient of light whose direction depends on the camera, and a vector on a line."""
    g = torch.Generator().manual_seed(seed)
    light = torch.randn(rows, generator=g)
    camera = torch.randint(2, 4, (rows,), generator=g)
    down = torch.linspace(-1.5, 1.5, 9)[:, None].expand(9, 10)
    across = torch.linspace(-1.5, 1.5, 10)[None].expand(9, 10)
    slope = torch.where((camera == 2)[:, None, None], down, across)
    noise = 0.1 * torch.randn(rows, 9, 10, generator=g)
    photo = slope + 0.3 * light[:, None, None] + noise
    place = light[:, None] * torch.tensor([1.0, -1.0, 0.5])
    place = place + 0.1 * torch.randn(rows, 3, generator=g)
    return Batch(light[:, None], camera[:, None], torch.zeros(rows), (photo[:, None], place))


def far_image_rows(rows: int, seed: int) -> Batch:
    """A chequered image of an unknown camera, and a vector off the line."""
    near = image_rows(rows, seed)
    squares = 8 * (torch.arange(9)[:, None] + torch.arange(10)[None]).remainder(2) - 4.0
    photo, place = near.signals
    return near._replace(
        codes=torch.zeros_like(near.codes),
        label=torch.ones(rows),
        signals=(squares.expand_as(photo).contiguous(), place + 6),
    )


def series_rows(rows: int, seed: int) -> Batch:
    """Two waves, the second half a period later; some rows are padded on the left."""
    g = torch.Generator().manual_seed(seed)
    phase = 2 * torch.pi * torch.rand(rows, 1, 1, generator=g)
    turn = torch.arange(12) * torch.pi / 4
    waves = torch.sin(turn + phase + torch.tensor([[0.0], [torch.pi]]))
    waves = waves + 0.1 * torch.randn(rows, 2, 12, generator=g)
    start = torch.randint(-6, 6, (rows, 1, 1), generator=g)
    mask = (torch.arange(12) >= start).float()
    age = torch.randn(rows, 1, generator=g)
    codes = torch.zeros(rows, 0, dtype=torch.int64)
    return Batch(age, codes, torch.zeros(rows), (torch.cat([waves * mask, mask], 1),))


def lone_series_rows(rows: int, seed: int) -> Batch:
    """The series alone."""
    return _leave_numbers_out(series_rows(rows, seed))


def far_lone_series_rows(rows: int, seed: int) -> Batch:
    """The last step of both channels is far out."""
    return _jump_at_last(lone_series_rows(rows, seed))._replace(label=torch.ones(rows))


def _jump_at_last(batch: Batch) -> Batch:
    return with_signal(batch, lambda load: load[:, :2, -1].fill_(20.0))


def _leave_numbers_out(batch: Batch) -> Batch:
    return batch._replace(numeric=batch.numeric[:, :0])


def far_series_rows(rows: int, seed: int) -> Batch:
    """Both channels jump up and down together."""
    near = series_rows(rows, seed)
    jumps = 10 * torch.arange(12).remainder(2) - 5.0
    series = near.signals[0].clone()
    series[:, :2] = jumps * series[:, 2:]
    return near._replace(label=torch.ones(rows), signals=(series,))


def token_rows(rows: int, seed: int) -> Batch:
    """The events 2 to 7 in turn, from a random one on; some rows are padded on the right."""
    g = torch.Generator().manual_seed(seed)
    first = torch.randint(0, 6, (rows, 1), generator=g)
    length = torch.randint(5, 11, (rows, 1), generator=g)
    place = torch.arange(10)
    events = torch.where(place < length, 2 + (first + place).remainder(6), 0)
    hour = torch.randn(rows, 1, generator=g)
    codes = torch.zeros(rows, 0, dtype=torch.int64)
    return Batch(hour, codes, torch.zeros(rows), (), (events,))


def far_token_rows(rows: int, seed: int) -> Batch:
    """Events that normal rows do not have, at a distant hour."""
    near = token_rows(rows, seed)
    events = near.tokens[0]
    unseen = torch.where(events > 0, 8 + events.remainder(4), 0)
    return near._replace(numeric=near.numeric + 6, label=torch.ones(rows), tokens=(unseen,))


def with_number(batch: Batch, place: int, value: float) -> Batch:
    numeric = batch.numeric.clone()
    numeric[:, place] = value
    return batch._replace(numeric=numeric)


def with_signal(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with its first signal changed in place."""
    first = batch.signals[0].clone()
    change(first)
    return batch._replace(signals=(first, *batch.signals[1:]))


def _bright_pixel(batch: Batch, value: float) -> Batch:
    return with_signal(batch, lambda photo: photo[:, 0, 4, 5].fill_(value))


def _last_step(batch: Batch, value: float) -> Batch:
    return with_signal(batch, lambda load: load[:, 0, -1].fill_(value))


def _dark_photo(batch: Batch) -> Batch:
    return with_signal(batch, lambda photo: photo.fill_(-8.0))


def _loud_steps(batch: Batch) -> Batch:
    return with_signal(batch, lambda load: load[:, 0, -6:].fill_(8.0))


def _unseen_events(batch: Batch) -> Batch:
    return batch._replace(tokens=(torch.where(batch.tokens[0] > 0, 11, 0),))


GIVEN = {
    given.name: given
    for given in (
        Given(
            "table",
            TABLE,
            table_rows,
            far_table_rows,
            odd=lambda batch: with_number(batch, 1, -8.0),
            odd_feature=1,
            huge=lambda batch, value: with_number(batch, 0, value),
            rows=3000,
            epochs=4,
            padded=1024,
        ),
        Given(
            "image",
            IMAGE,
            image_rows,
            far_image_rows,
            odd=_dark_photo,
            odd_feature=2,
            huge=_bright_pixel,
            rows=512,
            epochs=10,
            padded=256,
        ),
        Given(
            "series",
            SERIES,
            series_rows,
            far_series_rows,
            odd=_loud_steps,
            odd_feature=1,
            huge=_last_step,
            rows=512,
            epochs=10,
            padded=256,
        ),
        Given(
            "lone",
            LONE,
            lone_series_rows,
            far_lone_series_rows,
            odd=_jump_at_last,
            odd_feature=0,
            huge=_last_step,
            rows=512,
            epochs=10,
            padded=256,
        ),
        Given(
            "tokens",
            TOKENS,
            token_rows,
            far_token_rows,
            odd=_unseen_events,
            odd_feature=1,
            huge=None,
            rows=512,
            epochs=15,
            padded=256,
        ),
    )
}
