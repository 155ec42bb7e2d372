"""Ray Data as its batch inference tutorial has it: read, map a class over pandas batches, filter,
write, with the defaults of each."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import ray.data
import torch
from ray.data.expressions import col

from models.bundle import open_bundle, read_directory
from models.encoding.raw_batch import RawBatch
from tests.bench.contenders import ray_start
from tests.bench.contenders.task import OUTPUT, parse, report

_SPECIAL = 2  # codes before a vocabulary


class Detector:
    """What the tutorial calls the predictor."""

    def __init__(self, bundle: Path) -> None:
        opened = open_bundle(read_directory(bundle))
        self.encoder, self.detector = opened.encoder, opened.detector
        self.numbers = [source.column.name for source in self.encoder.sources]
        self.codes = {
            name: {text: code + _SPECIAL for code, text in enumerate(texts)}
            for name, texts in self.encoder.vocabularies.items()
        }
        self.numbers = [name for name in self.numbers if name not in self.codes]

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        values = batch[self.numbers].to_numpy(np.float32)
        codes = np.stack([batch[c].map(known).to_numpy() for c, known in self.codes.items()], 1)
        with torch.inference_mode():
            rows = self.encoder(RawBatch(values, codes.astype(np.int64)))
            batch["score"] = self.detector.score(rows).numpy()
        return batch[list(OUTPUT)]


def main() -> None:
    task = parse(__doc__)
    ray_start.start(task.processes)
    started = time.monotonic()
    (
        ray.data.read_parquet(task.root, filesystem=task.filesystem())
        .map_batches(
            Detector,
            fn_constructor_args=(task.bundle,),
            batch_format="pandas",
            batch_size=1024,  # the default until 2.5x, and what its examples pass
            # An actor takes a CPU; with all of them taken, nothing would be read.
            concurrency=max(1, task.processes // 2),
        )
        .filter(expr=col("score") > task.threshold)
        .write_parquet(str(task.out))
    )
    report(started)


if __name__ == "__main__":
    main()
