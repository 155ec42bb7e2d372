"""Scales signals: elementwise tensor operations on any device."""

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models.columns import Audio, FeatureColumn, Text
from models.encoding.signal_statistics import SignalStatistics
from models.encoding.signals import SignalScale, find_raw_shape
from models.layout import SignalInput
from models.refusal import Refusal

# Bounds on a scaled number, in standard deviations. A pixel that hardly changed in training could
# become huge without one. The elements of a vector share one deviation, of which an element that
# varies much may have many.
CLIP, VECTOR_CLIP = 10.0, 100.0


class SignalScaling(nn.Module):
    """Scales one signal to (x - mean) / deviation.

    Each band of a spectrogram, bin of a text's n-grams or channel of another signal has a mean and
    a deviation. The elements of a vector have means of their own but share one deviation, because
    they are in one unit (docs/decisions/vector-scaling.md).
    """

    centre: Tensor  # float32, in a shape that broadcasts to the raw signal
    width: Tensor

    def __init__(self, signal: SignalInput, centre: Tensor, width: Tensor) -> None:
        super().__init__()
        self.signal = signal
        self.raw_shape = find_raw_shape(signal)
        self.clip = VECTOR_CLIP if _is_vector(signal) else CLIP
        if centre.shape != width.shape or not _broadcasts(centre.shape, self.raw_shape):
            raise Refusal(
                f"expected scales for '{signal.name}' of shape {self.raw_shape}, found "
                f"{tuple(centre.shape)} and {tuple(width.shape)}; the encoder's tensors belong to "
                "another document"
            )
        self.register_buffer("centre", centre)
        self.register_buffer("width", width)

    @classmethod
    def from_statistics(
        cls, column: FeatureColumn, signal: SignalInput, statistics: SignalStatistics
    ) -> "SignalScaling":
        """The scaling by the moments of training; without any, nothing is scaled."""
        axis = 1 if isinstance(column, Audio) else 0
        places = signal.shape[axis] - signal.masked
        moments = statistics.moments.get(0 if isinstance(column, Audio | Text) else places)
        shape = [1] * len(signal.shape)
        shape[axis] = places
        if moments is None:
            return cls(signal, torch.zeros(shape), torch.ones(shape))
        deviation = moments.shared_deviation if _is_vector(signal) else moments.deviation
        return cls(signal, _to_tensor(moments.mean, shape), _to_tensor(deviation, shape))

    @property
    def raw_width(self) -> int:
        """The number of raw values in a row."""
        return math.prod(self.raw_shape)

    def forward(self, raw: Tensor, null: Tensor | None = None) -> Tensor:
        """Scale uint8 or float32 [rows, raw width] to float32 [rows, *shape].

        `null`, [rows], is not 0 for null rows, which become zeros.
        """
        values = raw.reshape(len(raw), *self.raw_shape)
        scaled = (values.float() - self.centre).div_(self.width).clamp_(-self.clip, self.clip)
        scaled = scaled.nan_to_num_(0.0)
        if null is not None:
            scaled[null != 0] = 0.0
        if self.signal.masked:
            there = ~values.isnan().all(1, keepdim=True)
            scaled = torch.cat([scaled, there.to(scaled.dtype)], 1)
        return scaled

    def to_scale(self) -> SignalScale:
        """The scale as arrays."""
        return SignalScale(self.raw_shape, self.centre.cpu().numpy(), self.width.cpu().numpy())


def _is_vector(signal: SignalInput) -> bool:
    """Whether the signal is a vector column, not the n-grams of a text."""
    return signal.kind == "vector" and signal.restates is None


def _broadcasts(shape: tuple[int, ...], raw: tuple[int, ...]) -> bool:
    return len(shape) == len(raw) and all(a in (1, b) for a, b in zip(shape, raw, strict=True))


def _to_tensor(values: npt.NDArray[np.float64], shape: list[int]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)
