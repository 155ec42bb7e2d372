"""The bundle's own modules over Arrow rows, as a user of another engine would call them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from models.bundle import open_bundle, read_directory
from models.encoding.raw_batch import RawBatch
from tests.bench.contenders.fused import CHUNK, Floats, codes, numbers


class EagerScorer:
    """Eager torch, one thread, in chunks that fit the cache."""

    def __init__(self, bundle: Path) -> None:
        torch.set_num_threads(1)
        opened = open_bundle(read_directory(bundle))
        self.encoder, self.detector = opened.encoder, opened.detector
        self.vocabularies = self.encoder.vocabularies
        self.columns = self.encoder.required
        self._numbers = [name for name in self.columns if name not in self.vocabularies]

    @torch.inference_mode()
    def scores(self, rows: pa.Table | pa.RecordBatch) -> Floats:
        """Scores [rows] of rows that hold `columns`."""
        values = np.stack([numbers(rows.column(name)) for name in self._numbers], 1)
        looked_up = [codes(rows.column(n), texts) for n, texts in self.vocabularies.items()]
        encoded = np.stack(looked_up, 1).astype(np.int64)
        result = np.empty(rows.num_rows, np.float32)
        for start in range(0, len(result), CHUNK):
            part = slice(start, start + CHUNK)
            batch = self.encoder(RawBatch(values[part], encoded[part]))
            result[part] = self.detector.score(batch).numpy()
        return result
