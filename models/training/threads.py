"""How many threads of torch a training step has work for (docs/decisions/waiting-threads.md)."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.batch import Batch
from models.detectors.detector import Detector

# Floating-point operations of a step for each thread. Waking a thread in each of a step's 60
# operations takes 3 ms, in which one thread does this much.
_WORK = 10**9
_ROWS = 32  # rows whose operations are counted


@contextmanager
def limit_threads(detector: Detector, sample: Batch, rows: int) -> Iterator[None]:
    """Use at most the threads that a step of `rows` rows has work for; `sample` has such rows.

    The number depends on the network and the rows alone, as it changes the last bits of a sum.
    """
    before = torch.get_num_threads()
    if before > 1 and sample.numeric.device.type == "cpu":
        torch.set_num_threads(min(before, max(1, count_work(detector, sample, rows) // _WORK)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def count_work(detector: Detector, sample: Batch, rows: int) -> int:
    """Floating-point operations of a training step of `rows` rows, by some rows of a sample."""
    learner, some = copy.deepcopy(detector).train(), sample.take(slice(_ROWS))
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counted:
        learner.loss(some).sum().backward()  # type: ignore[no-untyped-call]
    return int(counted.get_total_flops()) * rows // max(1, len(some.numeric))
