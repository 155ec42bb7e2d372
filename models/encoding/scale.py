"""The scales of the raw inputs, as numbers: for `scaling.py`, and to show values to people."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Smaller distances are subnormal in float32: a GPU may flush them to zero, and 0 / 0 is NaN.
SMALLEST = float(np.finfo(np.float32).tiny)

Floats = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """The scale of one raw input x: (t - centre) / width, where t = x or sign(x) log(1 + |x|).

    >>> scale = Scale(centre=100.0, width=20.0)
    >>> scale.invert(np.array([-1.0, 2.0])).tolist()
    [80.0, 140.0]
    """

    centre: float = 0.0
    width: float = 1.0
    log1p: bool = False
    clip: float | None = None
    knots: tuple[tuple[float, float], ...] = ()  # (t, normal score), strictly increasing in both

    def invert(self, scaled: Floats) -> Floats:
        """The raw inputs with these scaled values, for people to read: float64 in any shape."""
        if self.knots:
            points, scores = zip(*self.knots, strict=True)
            beyond = scaled - np.clip(scaled, scores[0], scores[-1])
            numbers: Floats = np.interp(scaled, scores, points) + beyond * self.width
        else:
            numbers = scaled * self.width + self.centre
        if not self.log1p:
            return numbers
        # A detector may expect any value, and float64 holds at most exp(709).
        raw: Floats = np.copysign(np.expm1(np.minimum(np.abs(numbers), 700.0)), numbers)
        return raw


@dataclass(frozen=True)
class NumberRange:
    """The range of a numeric column in training, in the unit of the input."""

    offset: float = 0.0  # subtracted in float64 where float32 could not tell values apart
    low: float = -math.inf
    high: float = math.inf
    median: float | None = None


@dataclass(frozen=True)
class VocabularyUse:
    """How often training had the values of a vocabulary."""

    rows: int  # of training
    most: int  # rows with the most frequent value
    complete: bool  # no value of training is without a code


# The names of the arrays of `Scaling`.
SCALING = ("centre", "width", "clip", "logged", "nulls", "ranked", "knots", "last")


def read_scales(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Scale, ...]:
    """The scale of each raw input, from the arrays of `Scaling`."""
    logged, clips = set(arrays["logged"].tolist()), arrays["clip"].tolist()
    tables = {}
    for i, j in enumerate(arrays["ranked"].tolist()):
        points, scores = arrays["knots"][:, i, : int(arrays["last"][i]) + 1].tolist()
        tables[j] = tuple(zip(points, scores, strict=True))
    pairs = zip(arrays["centre"].tolist(), arrays["width"].tolist(), strict=True)
    return tuple(
        Scale(centre, width, j in logged, clips[j], tables.get(j, ()))
        for j, (centre, width) in enumerate(pairs)
    )
