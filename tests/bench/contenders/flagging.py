"""The model over batches of Arrow, for the engines that call a function of ours."""

from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from tests.bench.contenders import fused
from tests.bench.contenders.task import KEPT


class ArrowScorer(Protocol):
    """Scores rows of Arrow."""

    def scores(self, rows: pa.Table | pa.RecordBatch) -> fused.Floats:
        """Scores [rows]."""


@cache
def scorer(bundle: Path, folded: bool = False) -> ArrowScorer:
    """The scorer of this process: the bundle's own modules, or those folded by hand."""
    pa.set_cpu_count(1)
    if folded:
        return fused.Scorer(fused.read(bundle))
    from tests.bench.contenders.eager import EagerScorer  # imports torch

    return EagerScorer(bundle)


def flags(rows: pa.RecordBatch | pa.Table, bundle: Path, threshold: float) -> pa.Table:
    """Id, time, addresses and score of the rows above the threshold."""
    scores = scorer(bundle).scores(rows)
    places = np.flatnonzero(scores > threshold)
    chosen = pa.array(places)
    kept = [rows.column(name).take(chosen) for name in KEPT]
    return pa.table([*kept, pa.array(scores[places])], names=[*KEPT, "score"])
