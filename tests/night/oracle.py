"""An oracle outside the system: the same bundle over the same files, in one plain loop.

It reads with pyarrow, scores row group by row group, and knows nothing of splits, journals or
commits.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.bundle import Bundle


def flagged_ids(bundle: Bundle, threshold: float, folder: Path, id_column: str) -> dict[str, float]:
    """id -> score of every row of the folder's files above the threshold."""
    found: dict[str, float] = {}
    encoder, detector = bundle.encoder.eval(), bundle.detector.eval()
    names = [*encoder.required, id_column]
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, columns=list(dict.fromkeys(names)), partitioning=None)
        for batch in table.combine_chunks().to_batches(max_chunksize=1000):
            found |= _score(encoder, detector, batch, threshold, id_column)
    return found


def _score(
    encoder: torch.nn.Module,
    detector: torch.nn.Module,
    batch: pa.RecordBatch,
    threshold: float,
    id_column: str,
) -> dict[str, float]:
    extracted = encoder.extract(batch)  # type: ignore[operator]
    with torch.inference_mode():
        scores = detector.score(encoder(extracted)).numpy()  # type: ignore[operator]
    ids = batch.column(id_column).to_pylist()
    return {str(ids[i]): float(scores[i]) for i in np.flatnonzero(scores > threshold)}
