"""PySpark's `mapInArrow` with one local worker a core and large Arrow batches."""

import logging
import os
import sys
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import (  # type: ignore[import-not-found,unused-ignore]
    SparkSession,
)
from pyspark.sql.types import (  # type: ignore[import-not-found,unused-ignore]
    FloatType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampNTZType,
)

from tests.bench.contenders import flagging, fused
from tests.bench.contenders.task import KEPT, parse, report
from tests.bench.measure import ROOT

# Rows of an Arrow batch: Spark's 10,000 were 10% slower, 65,536 no faster.
_BATCH = 32_768
_SCHEMA = StructType(
    [
        StructField("id", LongType()),
        StructField("ts", TimestampNTZType()),
        StructField("src", StringType()),
        StructField("dst", StringType()),
        StructField("score", FloatType()),
    ]
)


def main() -> None:
    task = parse(__doc__)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["OMP_NUM_THREADS"] = "1"
    logging.getLogger("py4j").setLevel(logging.ERROR)
    spark = (
        SparkSession.builder.master(f"local[{task.processes}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(_BATCH))
        .config("spark.sql.parquet.inferTimestampNTZ.enabled", "true")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    bundle, threshold = task.bundle, task.threshold
    columns = [*KEPT, *fused.read(bundle).columns]

    def above(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from flagging.flags(batch, bundle, threshold).to_batches()

    started = time.monotonic()
    lake = spark.read.parquet(task.lake).select(*columns)
    lake.mapInArrow(above, _SCHEMA).write.parquet(f"{task.out}/flags")
    report(started)
    spark.stop()


if __name__ == "__main__":
    main()
