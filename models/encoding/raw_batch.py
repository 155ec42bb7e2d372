"""Raw rows: decoded and looked up, but not yet scaled."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from models.decoding.scalars import Problem


class Unseen(NamedTuple):
    """The texts of a category that have no code of their own, for reasons."""

    category: int  # index in `layout.categories`
    rows: npt.NDArray[np.int64]  # [n], increasing
    texts: pa.Array  # [n]

    def take(self, kept: npt.NDArray[np.int64]) -> "Unseen":
        """Those of the rows `kept`, which are numbered anew."""
        at = np.searchsorted(self.rows, kept)
        new = np.flatnonzero(np.append(self.rows, -1)[at] == kept)
        return Unseen(self.category, new, self.texts.take(pa.array(at[new])))


class RawBatch(NamedTuple):
    """Rows before scaling, on one device. The cells of a row with a problem are zeros."""

    values: Tensor  # float32 [rows, raw inputs]; NaN is null
    codes: Tensor  # int64 [rows, categories]
    problems: tuple[Problem, ...] = ()  # by row, then in the order of the columns
    signals: tuple[Tensor, ...] = ()  # uint8 or float32 [rows, raw width] each, see `signals.py`
    tokens: tuple[Tensor, ...] = ()  # int32 [rows, length] each
    unseen: tuple[Unseen, ...] = ()  # of the categories that have any

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The size of the tensors in bytes."""
        return sum(t.nbytes for t in (self.values, self.codes, *self.signals, *self.tokens))

    def take(self, rows: Tensor | slice) -> "RawBatch":
        """The rows at the given indices, or those where a mask is true, without their problems."""
        taken = self.map(lambda tensor: tensor[rows])
        if not self.unseen:
            return taken
        kept = torch.arange(self.rows)[rows].numpy()
        unseen = (one.take(kept) for one in self.unseen)
        return taken._replace(unseen=tuple(one for one in unseen if len(one.rows)))

    def to(self, device: torch.device | str) -> "RawBatch":
        return self.map(lambda tensor: tensor.to(device))._replace(unseen=self.unseen)

    def map(self, change: Callable[[Tensor], Tensor]) -> "RawBatch":
        """The batch after `change` was applied to every tensor, without problems and texts."""
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
        _join_unseen(parts),
    )


def _join_unseen(parts: Sequence[RawBatch]) -> tuple[Unseen, ...]:
    starts = np.cumsum([0, *(part.rows for part in parts)])
    found: dict[int, list[Unseen]] = {}
    for part, start in zip(parts, starts.tolist(), strict=False):
        for one in part.unseen:
            found.setdefault(one.category, []).append(one._replace(rows=one.rows + start))
    return tuple(
        Unseen(
            category,
            np.concatenate([one.rows for one in ones]),
            pa.concat_arrays([one.texts.cast(pa.large_string()) for one in ones]),
        )
        for category, ones in found.items()
    )
