"""Threads of torch in Ray's workers: as planned, unless the operator has set OMP_NUM_THREADS."""

import psutil  # type: ignore[import-untyped]

VARIABLE = "OMP_NUM_THREADS"


def set_torch_threads(planned: int) -> int:
    """Give torch the threads that OMP_NUM_THREADS says, or `planned`; the number given.

    The variable counts as it was when this process started: Ray sets it later in each worker where
    nobody has, to the worker's CPUs.
    """
    import torch

    text = psutil.Process().environ().get(VARIABLE, "").partition(",")[0].strip()
    threads = int(text) if text.isdigit() and int(text) > 0 else planned
    torch.set_num_threads(threads)
    return threads
