"""Where the options of a detector are worth looking for better ones: plain values, drawn from a
seed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class OneOf:
    """Any of these, each as likely."""

    values: tuple[Any, ...]

    def draw(self, generator: np.random.Generator) -> Any:
        return self.values[int(generator.integers(len(self.values)))]


@dataclass(frozen=True)
class Between:
    """A number from low to high; with `log`, its logarithm is uniform."""

    low: float
    high: float
    log: bool = False

    def draw(self, generator: np.random.Generator) -> float:
        if self.log:
            drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high)))
        else:
            drawn = float(generator.uniform(self.low, self.high))
        return float(f"{drawn:.3g}")  # three digits: it is to be read and pasted


Space = Mapping[str, OneOf | Between]

WIDTHS = OneOf(((64,), (64, 32), (128, 64), (256, 128), (512, 256)))


def draw(space: Space, seed: int, trial: int) -> dict[str, Any]:
    """The options of a trial: the same for the same space, seed and number."""
    generator = np.random.default_rng((seed, trial))
    return {name: given.draw(generator) for name, given in space.items()}
