"""PyOD's AutoEncoder on pandas: a model of its own of the same shape, trained here on a sample.

The model is another, so its flags are too: the highest 1% of its scores of the sample give the
threshold. At most `_MOST` rows are scored, and the rate is that of those rows.
"""

import json
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from pyod.models.auto_encoder import (  # type: ignore[import-not-found,unused-ignore]
    AutoEncoder,
)

from tests.bench.contenders.task import KEPT, OUTPUT, parse
from tests.bench.workloads import ANOMALIES

_SAMPLE = 20_000
_MOST = 1_000_000


def encoded(rows: pd.DataFrame) -> np.ndarray:
    """Numbers and one-hot categories: float32 [rows, 31]."""
    features = rows.drop(columns=list(KEPT))
    onehot = pd.get_dummies(features, columns=["proto", "service"], dtype=np.float32)
    return onehot.to_numpy(np.float32)


def main() -> None:
    task = parse(__doc__)
    torch.set_num_threads(task.processes)
    files = task.files()
    opened = task.filesystem()

    def read(path: str) -> pd.DataFrame:
        rows: pd.DataFrame = pq.ParquetFile(opened.open_input_file(path)).read().to_pandas()
        return rows

    detector = AutoEncoder(
        contamination=ANOMALIES,
        preprocessing=True,
        epoch_num=1,
        batch_size=1024,
        hidden_neuron_list=[64, 32, 8],
        batch_norm=False,
        dropout_rate=0.0,
        verbose=0,
    )
    detector.fit(encoded(read(files[0]).head(_SAMPLE)))
    started = time.monotonic()
    done = flagged = 0
    total = sum(pq.ParquetFile(opened.open_input_file(f)).metadata.num_rows for f in files)
    for number, path in enumerate(files):
        if done >= _MOST:
            break
        rows = read(path)
        rows["score"] = detector.decision_function(encoded(rows)).astype(np.float32)
        flags = rows.loc[rows["score"] > detector.threshold_, list(OUTPUT)]
        flags.to_parquet(task.out / f"part-{number:05}.parquet", index=False)
        done, flagged = done + len(rows), flagged + len(flags)
    seconds = round(time.monotonic() - started, 3)
    note = f"a model of its own, trained on {_SAMPLE:,} rows within the wall time"
    if done < total:
        note += f"; {done:,} of {total:,} rows were scored, and its rate is that of those"
    said = {"rows": done, "flagged": flagged, "job_seconds": seconds, "note": note}
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
