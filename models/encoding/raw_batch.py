"""Raw rows: decoded and looked up, but not yet scaled."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.decoding.scalars import Problem


class RawBatch(NamedTuple):
    """Rows before scaling, on one device. The cells of a row with a problem are zeros."""

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
        """The size of the tensors in bytes."""
        return sum(t.nbytes for t in (self.values, self.codes, *self.signals, *self.tokens))

    def take(self, rows: Tensor | slice) -> "RawBatch":
        """The rows at the given indices, or those where a mask is true, without their problems."""
        return self.map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> "RawBatch":
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "RawBatch":
        """The batch after `change` was applied to every tensor, without the problems."""
        return RawBatch(
            change(self.values),
            change(self.codes),
            (),
            tuple(map(change, self.signals)),
            tuple(map(change, self.tokens)),
        )


def join(parts: Sequence[RawBatch]) -> RawBatch:
    """Concatenate batches, without their problems. Each column is contiguous in memory."""
    if len(parts) == 1:
        return parts[0]._replace(problems=())
    return RawBatch(
        torch.cat([part.values.T for part in parts], 1).T,
        torch.cat([part.codes.T for part in parts], 1).T,
        (),
        tuple(map(torch.cat, zip(*(part.signals for part in parts), strict=True))),
        tuple(map(torch.cat, zip(*(part.tokens for part in parts), strict=True))),
    )
