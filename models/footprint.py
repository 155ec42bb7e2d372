"""The memory of a detector, as `models.training.memory` measures it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """The most bytes that are allocated while a batch is computed.

    >>> Footprint(weights=1_000, fixed=200, row=10).rows_in(2_000)
    80
    """

    weights: int  # of encoder and detector, with their gradients and moments in training
    fixed: int  # of any batch
    row: int  # of each row in the batch

    def bytes_of(self, rows: int) -> int:
        """Bytes while a batch of this many rows is computed."""
        return self.weights + self.fixed + self.row * rows

    def rows_in(self, room: int) -> int:
        """Rows of the largest batch that fits into `room` bytes; 0 if none does."""
        return max(0, room - self.weights - self.fixed) // max(1, self.row)
