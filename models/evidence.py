"""Evidence: why a detector gave rows their scores, as arrays, for `models.explaining`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Evidence(NamedTuple):
    """`models.batch.Contributions` of some rows, and the signals that were scored, as arrays."""

    shares: Array  # [rows, len(layout.features)], in the unit of the score
    # What the detector expected instead, encoded.
    numeric: Array  # [rows, len(layout.numeric)]
    codes: Array  # [rows, len(layout.categories)]
    signals: tuple[Array, ...] = ()  # [rows, *shape] each
    tokens: tuple[Array, ...] = ()  # [rows, length] each
    maps: tuple[Array, ...] = ()  # the share of each place of the signals, then of the tokens
    scored: tuple[Array, ...] = ()  # the encoded signals of the rows: [rows, *shape] each

    def take(self, rows: slice) -> "Evidence":
        """The evidence of some of the rows."""
        groups = (tuple(array[rows] for array in group) for group in self[3:])
        return Evidence(self.shares[rows], self.numeric[rows], self.codes[rows], *groups)


def join_evidence(parts: Sequence[Evidence]) -> Evidence:
    """The evidence of all rows of the parts."""
    shares, numeric, codes = (np.concatenate([part[place] for part in parts]) for place in range(3))
    groups = (
        tuple(map(np.concatenate, zip(*(part[place] for part in parts), strict=True)))
        for place in range(3, len(Evidence._fields))
    )
    return Evidence(shares, numeric, codes, *groups)
