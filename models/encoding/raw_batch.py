"""Rows as the encoder extracted them: raw, on the CPU or wherever they were sent."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.decoding.scalars import Problem


class RawBatch(NamedTuple):
    """A batch of rows before scaling. Rows with problems are still there, with zeros for them."""

    values: Tensor  # float32 [rows, raw inputs]; NaN is null
    codes: Tensor  # int64 [rows, categories]
    problems: tuple[Problem, ...] = ()  # by row, then in the order of the columns
    signals: tuple[Tensor, ...] = ()  # uint8 or float32 [rows, raw width] each, see `signals.py`
    tokens: tuple[Tensor, ...] = ()  # int32 [rows, length] each

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(t.nbytes for t in (self.values, self.codes, *self.signals, *self.tokens))

    def take(self, rows: Tensor | slice) -> "RawBatch":
        """The rows at these places, or where a mask is true, without their problems."""
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> "RawBatch":
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "RawBatch":
        """Every tensor changed in the same way, without the problems."""
        return RawBatch(
            change(self.values),
            change(self.codes),
            (),
            tuple(map(change, self.signals)),
            tuple(map(change, self.tokens)),
        )


def join(parts: Sequence[RawBatch]) -> RawBatch:
    """The rows of all parts, without their problems; each column in one piece of memory."""
    if len(parts) == 1:
        return parts[0]._replace(problems=())
    return RawBatch(
        torch.cat([part.values.T for part in parts], 1).T,
        torch.cat([part.codes.T for part in parts], 1).T,
        (),
        tuple(map(torch.cat, zip(*(part.signals for part in parts), strict=True))),
        tuple(map(torch.cat, zip(*(part.tokens for part in parts), strict=True))),
    )
