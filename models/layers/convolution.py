"""Networks that convolve the series, images, sounds and videos of a row; the rest is dense.

Rows are the matrix of `models.layers.dense_inputs.Inputs` (numbers, signals, frequencies of tokens,
categories), so a detector of tables becomes one of signals when its layers are replaced by these.
"""

import itertools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layout import Layout, SignalInput

# Maps are halved until no side is longer: the 4 to 64 places left are few enough for a dense layer.
_SIDE = 4
# Channels double with each halving up to this number, so that large images cost no more a pixel.
_MOST_CHANNELS = 128
_CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_SLOPE = 0.1  # slope of the LeakyReLU below 0


def is_spatial(signal: SignalInput) -> bool:
    """Whether the numbers of a signal have neighbours: it is not a vector."""
    return signal.kind != "vector"


def require_spatial(layout: Layout) -> str | None:
    """For `Detector.unfit`: the message if a layout has no spatial signal, else None."""
    if any(map(is_spatial, layout.signals)):
        return None
    found = ", ".join(layout.features[:5]) or "none"
    return f"expected a series, an image, a spectrogram or a video, found other columns: {found}"


class Pyramid(NamedTuple):
    """Shapes of the maps of one signal, from the signal itself to the smallest map."""

    channels: list[int]
    sides: list[tuple[int, ...]]

    @classmethod
    def of(cls, signal: SignalInput, channels: int) -> "Pyramid":
        """Halve the sides longer than 4 and double the channels; at least once."""
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
        """The number of values in the smallest map."""
        return self.channels[-1] * math.prod(self.sides[-1])


class Tower(nn.Module):
    """Convolutions over one signal: [rows, channels, *sides] to the flat smallest map.

    Nothing is normalised over a batch, so a row does not depend on the others. Deep SVDD needs a
    network without bias and with an unbounded activation: this one, with `bias` false.
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
    """The reverse of a `Tower`: a flat map to the flat signal.

    Each step convolves, then enlarges the map by repeating its values; transposed convolutions
    leave chequered patterns (Odena et al., Distill 2016). Enlarging first would cost three times as
    much; only the last step does.
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
            values = _enlarge(layer(F.leaky_relu(values, _SLOPE)), size)
        painted: Tensor = last(_enlarge(F.leaky_relu(values, _SLOPE), sides[-1]))
        return painted.reshape(len(painted), math.prod(painted.shape[1:]))


def _enlarge(values: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Maps [rows, channels, *sides]. On a GPU torch's kernel goes over the rows one by one
    (docs/decisions/gpu-loops.md)."""
    if values.device.type == "cpu":
        return F.interpolate(values, sides)
    return repeat_halved(values, sides)


def repeat_halved(values: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Each value twice along the sides that were halved, as the nearest value of `interpolate`."""
    halved = [have < side for have, side in zip(values.shape[2:], sides, strict=True)]
    lengths = [(n, 1 + half) for n, half in zip(values.shape[2:], halved, strict=True)]
    rows, channels = values.shape[:2]
    apart = values.reshape(rows, channels, *(n for have, _ in lengths for n in (have, 1)))
    spread = apart.expand(rows, channels, *(n for pair in lengths for n in pair))
    large = spread.reshape(rows, channels, *(have * times for have, times in lengths))
    for axis, side in enumerate(sides, 2):
        large = large.narrow(axis, 0, side)
    return large


class Section(NamedTuple):
    """Adjacent columns: one spatial signal, or all columns between two of them."""

    width: int
    signal: SignalInput | None


def split_sections(layout: Layout, width: int) -> list[Section]:
    """The sections of a row of `width` columns, in order."""
    sections = [Section(len(layout.numeric), None)]
    for signal in layout.signals:
        sections.append(Section(signal.width, signal if is_spatial(signal) else None))
    return [*sections, Section(width - sum(s.width for s in sections), None)]


class Towers(nn.Module):
    """Rows [rows, width] to outputs [rows, outputs].

    A `Tower` for each spatial signal, dense layers for the other columns, one layer that joins
    them.
    """

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
        """The bias of the outputs."""
        return self.last.bias

    def extract_features(self, rows: Tensor) -> Tensor:
        """The inputs of the last layer: [rows, features]."""
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
    """The reverse of `Towers`: codes [rows, inputs] to rows [rows, width]."""

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
