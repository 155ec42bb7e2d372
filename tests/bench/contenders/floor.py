"""What Ray and torch cost by themselves: import both, start Ray, stop it. Nothing is scored."""

import time

from tests.bench.contenders import ray_start
from tests.bench.contenders.task import parse, report


def main() -> None:
    task = parse(__doc__)
    started = time.monotonic()
    ray_start.start(task.processes)
    import ray
    import torch

    torch.set_num_threads(1)
    ray.shutdown()
    report(started, 0, 0)


if __name__ == "__main__":
    main()
