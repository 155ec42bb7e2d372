"""Whether two contenders flagged the same rows.

Scores of different programs differ in their last bits, so a row whose score lies at the threshold
may be flagged by one and not by the other. Such a row is excused if its score is within
`TOLERANCE` of the threshold, relatively; any other difference, a row that is there twice, or a
score that differs by more than the tolerance, is a disagreement.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

# The folded network differs from the detector by 2e-6 at the threshold, on CPUs of two makes.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Flags:
    """What a contender wrote: ids, sorted, and their scores."""

    ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    @property
    def digest(self) -> str:
        """SHA-256 of the sorted ids, 16 digits."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()[:16]


def read(out: Path) -> Flags:
    """The flags in an output folder: the table of a watch, or plain Parquet files."""
    if (out / "flags" / "_delta_log").exists():
        data = DeltaTable(str(out / "flags")).to_pyarrow_dataset()
    elif files := sorted(map(str, out.rglob("*.parquet"))):
        data = ds.dataset(files, format="parquet")
    else:
        return Flags(np.empty(0, np.int64), np.empty(0, np.float32))
    found: pa.Table = data.to_table(columns=["id", "score"])
    ids, scores = found.column("id").to_numpy(), found.column("score").to_numpy()
    order = np.argsort(ids, kind="stable")
    return Flags(ids[order], scores[order].astype(np.float32))


def difference(reference: Flags, found: Flags, threshold: float) -> str | None:
    """How the flags differ by more than rounding; None if they do not."""
    for flags in (reference, found):
        doubled = int((np.diff(flags.ids) == 0).sum())
        if doubled:
            return f"{doubled:,} rows are there twice"
    _, at, also = np.intersect1d(reference.ids, found.ids, assume_unique=True, return_indices=True)
    apart = _relative(found.scores[also], reference.scores[at])
    if len(apart) and apart.max() > TOLERANCE:
        return f"scores differ by up to {apart.max():.1e}, relatively"
    missing = np.delete(reference.scores, at)
    surplus = np.delete(found.scores, also)
    for name, scores in (("are missing", missing), ("are too many", surplus)):
        clear = int((_relative(scores, np.float32(threshold)) > TOLERANCE).sum())
        if clear:
            return f"{clear:,} flags {name}"
    return None


def _relative(
    scores: npt.NDArray[np.float32], to: npt.NDArray[np.float32] | np.float32
) -> npt.NDArray[np.float32]:
    result: npt.NDArray[np.float32] = np.abs(scores - to) / np.maximum(np.abs(to), 1e-6)
    return result
