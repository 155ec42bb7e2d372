"""Networks over a row that convolve its series, images and videos and take the rest as it is.

Rows are the matrix of `models.layers.dense_inputs.Inputs` (numbers, signals, bags of tokens,
categories), so a detector of tables becomes one of signals by having its layers replaced.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.batch import Layout, SignalInput

# Maps are halved until no side is longer: 16 to 64 places are few enough for a dense layer.
_SIDE = 4
# Channels double with each halving up to here, so that large images cost no more a pixel.
_MOST_CHANNELS = 128
_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_SLOPE = 0.1  # of the LeakyReLU below 0


def is_spatial(signal: SignalInput) -> bool:
    """Whether its numbers have neighbours: a series, an image or a video."""
    return signal.kind != "vector"


def require_spatial(layout: Layout) -> str | None:
    """What `Detector.unfit` says of a layout in which there is nothing to convolve."""
    if any(map(is_spatial, layout.signals)):
        return None
    found = ", ".join(layout.features[:5]) or "none"
    return f"expected a series, an image, a spectrogram or a video, found other columns: {found}"


class Pyramid(NamedTuple):
    """Shapes of the maps of one signal, from the signal itself to the smallest."""

    channels: list[int]
    sides: list[tuple[int, ...]]

    @classmethod
    def of(cls, signal: SignalInput, channels: int) -> "Pyramid":
        """Each side longer than 4 is halved, `channels` double, at least once."""
        inputs, *sides = signal.shape
        pyramid, most = cls([inputs], [tuple(sides)]), max(channels, _MOST_CHANNELS)
        while max(pyramid.sides[-1]) > _SIDE or len(pyramid.sides) == 1:
            smaller = tuple(math.ceil(n / 2) if n > _SIDE else n for n in pyramid.sides[-1])
            pyramid.sides.append(smaller)
            pyramid.channels.append(min(channels, most))
            channels *= 2
        return pyramid

    @property
    def width(self) -> int:
        """Numbers in the smallest map."""
        return self.channels[-1] * math.prod(self.sides[-1])


class Tower(nn.Module):
    """Convolutions over one signal: [rows, channels, *sides] to the smallest map, flat.

    Nothing is normalised over a batch: a row does not depend on the others. Without `bias`, and
    with an activation that has no bound, it is what Deep SVDD asks of a network.
    """

    def __init__(self, signal: SignalInput, channels: int, bias: bool) -> None:
        super().__init__()
        self.pyramid = Pyramid.of(signal, channels)
        conv = _CONV[len(signal.shape) - 1]
        steps = itertools.pairwise(zip(*self.pyramid, strict=True))
        self.layers = nn.ModuleList(
            conv(a, b, 3, [2 if m < n else 1 for n, m in zip(large, small, strict=True)], 1)
            for (a, large), (b, small) in steps
        )
        if not bias:
            for layer in self.layers:
                layer.register_parameter("bias", None)

    def forward(self, values: Tensor) -> Tensor:
        for layer in self.layers:
            values = F.leaky_relu(layer(values), _SLOPE)
        return values.flatten(1)


class Painter(nn.Module):
    """The way back of a `Tower`: a flat map to the signal, in its own size.

    Each step convolves and repeats the places of the map until it has the next one's size (Odena
    et al., Distill 2016: transposed convolutions leave chequered patterns); the last repeats
    first. The other order costs three times as much.
    """

    def __init__(self, signal: SignalInput, channels: int) -> None:
        super().__init__()
        self.pyramid = Pyramid.of(signal, channels)
        conv = _CONV[len(signal.shape) - 1]
        steps = itertools.pairwise(self.pyramid.channels[::-1])
        self.layers = nn.ModuleList(conv(a, b, 3, padding=1) for a, b in steps)

    def forward(self, flat: Tensor) -> Tensor:
        smallest, *sides = self.pyramid.sides[::-1]
        values = flat.reshape(-1, self.pyramid.channels[-1], *smallest)
        *inner, last = self.layers
        for layer, size in zip(inner, sides[:-1], strict=True):
            values = F.interpolate(layer(F.leaky_relu(values, _SLOPE)), size)
        painted: Tensor = last(F.interpolate(F.leaky_relu(values, _SLOPE), sides[-1]))
        return painted.reshape(len(painted), math.prod(painted.shape[1:]))


class Section(NamedTuple):
    """A run of columns: one spatial signal, or what lies between two."""

    width: int
    signal: SignalInput | None


def split_sections(layout: Layout, width: int) -> list[Section]:
    """The columns of a row of `width`, in order."""
    sections = [Section(len(layout.numeric), None)]
    for signal in layout.signals:
        sections.append(Section(signal.width, signal if is_spatial(signal) else None))
    return [*sections, Section(width - sum(s.width for s in sections), None)]


class Towers(nn.Module):
    """Rows [rows, width] to features [rows, outputs]: a tower a spatial signal, dense layers for
    the other columns, one layer that joins them."""

    def __init__(
        self,
        layout: Layout,
        width: int,
        outputs: int,
        channels: int,
        widths: tuple[int, ...],
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.sections = split_sections(layout, width)
        towers = [Tower(s.signal, channels, bias) for s in self.sections if s.signal is not None]
        self.towers = nn.ModuleList(towers)
        beside = sum(s.width for s in self.sections if s.signal is None)
        sizes = (beside, *widths) if beside else ()
        self.dense = nn.ModuleList(nn.Linear(a, b, bias) for a, b in itertools.pairwise(sizes))
        joined = sum(t.pyramid.width for t in towers) + (widths[-1] if beside else 0)
        self.last = nn.Linear(joined, outputs, bias)

    def forward(self, rows: Tensor, dropout: float = 0.0) -> Tensor:
        out: Tensor = self.last(F.dropout(self.extract_features(rows), dropout))
        return out

    @property
    def bias(self) -> Tensor:
        """That of the outputs."""
        return self.last.bias

    def extract_features(self, rows: Tensor) -> Tensor:
        """What the last layer joins."""
        parts = torch.split(rows, [s.width for s in self.sections], 1)
        beside = [p for p, s in zip(parts, self.sections, strict=True) if s.signal is None]
        shaped = [
            p.reshape(-1, *s.signal.shape)
            for p, s in zip(parts, self.sections, strict=True)
            if s.signal is not None
        ]
        features = [tower(p) for tower, p in zip(self.towers, shaped, strict=True)]
        if self.dense:
            values = torch.cat(beside, 1)
            for layer in self.dense:
                values = F.leaky_relu(layer(values), _SLOPE)
            features.append(values)
        return torch.cat(features, 1)


class Painters(nn.Module):
    """The way back of `Towers`: codes [rows, inputs] to rows [rows, width]."""

    def __init__(
        self, layout: Layout, inputs: int, width: int, channels: int, widths: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.sections = split_sections(layout, width)
        painters = [Painter(s.signal, channels) for s in self.sections if s.signal is not None]
        beside = sum(s.width for s in self.sections if s.signal is None)
        sizes = (*widths[::-1], beside) if beside else ()
        self.painters = nn.ModuleList(painters)
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.widths = [*(p.pyramid.width for p in painters), widths[-1] if beside else 0]
        self.first = nn.Linear(inputs, sum(self.widths))

    def forward(self, codes: Tensor) -> Tensor:
        *flat, values = torch.split(self.first(codes), self.widths, 1)
        painted = iter([p(f) for p, f in zip(self.painters, flat, strict=True)])
        for layer in self.dense:
            values = layer(F.leaky_relu(values, _SLOPE))
        others = iter(
            torch.split(values, [s.width for s in self.sections if s.signal is None], 1)
            if self.dense
            else [values] * len(self.sections)
        )
        return torch.cat([next(others if s.signal is None else painted) for s in self.sections], 1)
