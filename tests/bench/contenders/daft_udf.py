"""Daft with a class UDF: projected columns, large batches of Arrow, one process a core."""

import os
import time
from pathlib import Path

import daft  # type: ignore[import-not-found,unused-ignore]
import pyarrow as pa
from daft import (  # type: ignore[import-not-found,unused-ignore]
    DataType,
    Series,
    col,
)
from daft.io import (  # type: ignore[import-not-found,unused-ignore]
    IOConfig,
    S3Config,
)

from tests.bench.contenders import flagging, fused
from tests.bench.contenders.task import KEPT, OUTPUT, parse, report

# Rows of a call.
_BATCH = 65_536


@daft.cls(max_concurrency=os.cpu_count() or 1, use_process=True)  # type: ignore[untyped-decorator,unused-ignore]
class Detector:
    """Scores columns of Arrow in a process of its own."""

    def __init__(self, bundle: str, folded: bool) -> None:
        self.bundle, self.folded = Path(bundle), folded
        self.columns = list(fused.read(self.bundle).columns)

    @daft.method.batch(  # type: ignore[untyped-decorator,unused-ignore]
        return_dtype=DataType.float32(), batch_size=_BATCH
    )
    def score(self, *columns: Series) -> Series:
        rows = pa.table([column.to_arrow() for column in columns], names=self.columns)
        return Series.from_arrow(pa.array(flagging.scorer(self.bundle, self.folded).scores(rows)))


def main(description: str | None, folded: bool = False) -> None:
    task = parse(description)
    columns = fused.read(task.bundle).columns
    started = time.monotonic()
    config = None
    if task.remote:
        config = IOConfig(
            s3=S3Config(endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
        )
    detector = Detector(str(task.bundle), folded)
    (
        daft.read_parquet(f"{task.lake}/**/*.parquet", io_config=config)
        .select(*KEPT, *columns)
        .with_column("score", detector.score(*(col(name) for name in columns)))
        .where(col("score") > task.threshold)
        .select(*OUTPUT)
        .write_parquet(str(task.out))
    )
    report(started)


if __name__ == "__main__":
    main(__doc__)
