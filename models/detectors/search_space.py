"""The values of a detector's options that `tune` tries, drawn from a seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OneOf:
    """One of several values, all equally likely."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class Between:
    """A uniform number from `low` to `high`; with `log`, its logarithm is uniform."""

    low: float
    high: float
    log: bool = False

    def draw(self, generator: np.random.Generator) -> float:
        if self.log:
            drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = float(generator.uniform(self.low, self.high))
        return float(f"{drawn:.3g}")  # three digits, so that people can read and paste it


Space = Mapping[str, OneOf | Between]

WIDTHS = OneOf(((64,), (64, 32), (128, 64), (256, 128), (512, 256)))


def draw(space: Space, seed: int, trial: int) -> dict[str, Any]:
    """The options of one trial. The same space, seed and trial give the same options.

    >>> draw({"neighbours": OneOf((1, 5, 10)), "share": Between(0.3, 0.99)}, seed=0, trial=1)
    {'neighbours': 5, 'share': 0.684}
    """
    generator = np.random.default_rng((seed, trial))
    return {name: values.draw(generator) for name, values in space.items()}
