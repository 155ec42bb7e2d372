"""Raw rows: decoded and looked up, but not yet scaled."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.decoding.scalars import Problem

Array = npt.NDArray[Any]


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
    """Rows before scaling. The cells of a row with a problem are zeros.

    Each column of `values` and `codes` is contiguous in memory.
    """

    values: npt.NDArray[np.float32]  # [rows, raw inputs]; NaN is null
    codes: npt.NDArray[np.int64]  # [rows, categories]
    problems: tuple[Problem, ...] = ()  # by row, then in the order of the columns
    signals: tuple[Array, ...] = ()  # uint8 or float32 [rows, raw width] each, see `signals.py`
    tokens: tuple[npt.NDArray[np.int32], ...] = ()  # [rows, length] each
    unseen: tuple[Unseen, ...] = ()  # of the categories that have any

    @property
    def rows(self) -> int:
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The size of the arrays in bytes."""
        arrays: list[Array] = [self.values, self.codes, *self.signals, *self.tokens]
        return sum(array.nbytes for array in arrays)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_] | slice) -> "RawBatch":
        """The rows at the given places, or those where a mask is true, without their problems."""
        taken = RawBatch(
            self.values.T[:, rows].T,
            self.codes.T[:, rows].T,
            (),
            tuple(array[rows] for array in self.signals),
            tuple(array[rows] for array in self.tokens),
        )
        if not self.unseen:
            return taken
        kept = np.arange(self.rows)[rows]
        unseen = (one.take(kept) for one in self.unseen)
        return taken._replace(unseen=tuple(one for one in unseen if len(one.rows)))

    def pad(self, rows: int) -> "RawBatch":
        """The batch with rows of zeros behind its own, without problems and texts."""

        def fill(array: Array) -> Array:
            if len(array) == rows:
                return array
            zeros = np.zeros((rows - len(array), *array.shape[1:]), array.dtype)
            return np.concatenate([array, zeros])

        return RawBatch(
            fill(self.values),
            fill(self.codes),
            (),
            tuple(map(fill, self.signals)),
            tuple(map(fill, self.tokens)),
        )

    def cut(self, rows: int) -> Iterator[tuple["RawBatch", "RawBatch"]]:
        """Yield (part, padded part) pairs: the padded ones have exactly so many rows."""
        for start in range(0, self.rows, rows):
            part = self.take(slice(start, start + rows))
            yield part, part.pad(rows)


def join(parts: Sequence[RawBatch]) -> RawBatch:
    """Concatenate batches, without their problems. Each column is contiguous in memory."""
    if len(parts) == 1:
        return parts[0]._replace(problems=())
    return RawBatch(
        np.concatenate([part.values.T for part in parts], axis=1).T,
        np.concatenate([part.codes.T for part in parts], axis=1).T,
        (),
        tuple(map(np.concatenate, zip(*(part.signals for part in parts), strict=True))),
        tuple(map(np.concatenate, zip(*(part.tokens for part in parts), strict=True))),
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
