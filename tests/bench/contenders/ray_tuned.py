"""Ray Data with every knob turned: projected columns, Arrow batches of a whole block, the
reading fused with the actors, the filter in the actor, small reading tasks, no order kept."""

import os
import time
from pathlib import Path

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from tests.bench.contenders import flagging, fused, ray_start
from tests.bench.contenders.task import KEPT, parse, report

# What an actor reserves: with a whole CPU each, no task that lists files would ever start.
_CPUS = 0.5
# Uncompressed bytes of a reading task: Ray's own 128 MiB leave one of two actors idle at the end.
_BIN = 32 * 1024**2


class Detector:
    """Scores Arrow batches and keeps the flags."""

    def __init__(self, bundle: Path, threshold: float) -> None:
        self.bundle, self.threshold = bundle, threshold
        flagging.scorer(bundle)

    def __call__(self, batch: pa.Table) -> pa.Table:
        return flagging.flags(batch, self.bundle, self.threshold)


def main() -> None:
    task = parse(__doc__)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_DATA_PARQUET_BIN_PACKING_BYTES"] = str(_BIN)
    ray_start.start(task.processes)
    DataContext.get_current().execution_options.preserve_order = False
    columns = [*KEPT, *fused.read(task.bundle).columns]
    started = time.monotonic()
    # Reading is fused with the actors only where both ask for the same resources.
    (
        ray.data.read_parquet(
            task.root, filesystem=task.filesystem(), partitioning=None, num_cpus=_CPUS
        )
        .select_columns(columns)
        .map_batches(
            Detector,
            fn_constructor_args=(task.bundle, task.threshold),
            batch_format="pyarrow",
            batch_size=None,  # a block: the scorer cuts it into chunks itself
            compute=ActorPoolStrategy(size=task.processes),
            num_cpus=_CPUS,
        )
        .write_parquet(str(task.out))
    )
    report(started)


if __name__ == "__main__":
    main()
