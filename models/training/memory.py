"""Measuring the memory of a detector on its device: bytes of the weights, bytes a row."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.footprint import Footprint
from models.private_torch import TorchDispatchMode, tree_leaves

# Rows of the larger of two measured batches, at most a chunk. With fewer than some hundred rows the
# fixed bytes of a batch hide the bytes a row; a chunk of images is 100 MiB of activations.
_ROWS = 512
# Of each weight: a gradient, and the two moments of AdamW.
_COPIES_IN_TRAINING = 3


def measure_scoring(encoder: Encoder, detector: Detector, device: torch.device) -> Footprint:
    """Measure the memory of encoding and scoring a batch."""
    encoder, detector = encoder.to(device).eval(), detector.to(device).eval()

    def score(rows: int) -> None:
        with torch.inference_mode():
            detector.score(encode_zeros(encoder, rows, device))

    most = encoder.layout.chunk_rows
    return _measure(score, _count_bytes(encoder) + _count_bytes(detector), most, device)


def measure_training(encoder: Encoder, detector: Detector, device: torch.device) -> Footprint:
    """Measure the memory of a training step; the detector stays as it is."""
    encoder, learner = encoder.to(device).eval(), copy.deepcopy(detector).to(device).train()
    weights = _count_bytes(encoder) + (1 + _COPIES_IN_TRAINING) * _count_bytes(learner)
    most = encoder.layout.chunk_rows
    return _measure(lambda rows: _step(encoder, learner, rows, device), weights, most, device)


def find_largest_step(encoder: Encoder, detector: Detector, rows: int, device: torch.device) -> int:
    """Rows of the largest training step that a CUDA device has memory for, at most `rows`."""
    learner = copy.deepcopy(detector).train()
    return find_largest_batch(lambda some: _step(encoder, learner, some, device), rows)


def find_room(encoder: Encoder, detector: Detector, rows: int, device: torch.device) -> int:
    """Bytes of a CUDA device that stay free while a training makes steps of `rows` rows."""
    learner = copy.deepcopy(detector).train()
    step = _measure_peak(lambda some: _step(encoder, learner, some, device), rows, device)
    torch.cuda.empty_cache()
    free = int(torch.cuda.mem_get_info(device)[0])
    return max(0, free - step - _COPIES_IN_TRAINING * _count_bytes(detector))


def _step(encoder: Encoder, learner: Detector, rows: int, device: torch.device) -> None:
    """Compute the gradients of a batch; the next step frees them."""
    learner.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        losses = learner.loss(encode_zeros(encoder, rows, device)).float()
    losses.sum().backward()  # type: ignore[no-untyped-call]


def find_largest_batch(work: Callable[[int], object], most: int) -> int:
    """Rows of the largest batch that `work` computes within the memory of a CUDA device: `most`,
    or the largest power of two; 0 if one row is too many.

    A process that runs out of a CPU's memory is killed: use `Footprint.rows_in` there.
    """
    if _fits(work, most):
        return most
    rows = 1
    while rows < most and _fits(work, rows):
        rows *= 2
    return rows // 2


def _fits(work: Callable[[int], object], rows: int) -> bool:
    try:
        work(rows)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return True


def _measure(
    work: Callable[[int], None], weights: int, most: int, device: torch.device
) -> Footprint:
    """Measure two batches of different size, which gives the bytes a row and the fixed bytes."""
    rows = max(1, min(_ROWS, most) // 2)
    work(rows)  # so that what is allocated once is not counted
    small, large = (_measure_peak(work, some, device) for some in (rows, 2 * rows))
    row = max(1, -(-(large - small) // rows))
    return Footprint(weights, max(0, small - row * rows), row)


def _measure_peak(work: Callable[[int], None], rows: int, device: torch.device) -> int:
    """The most bytes that `work` has allocated at the same time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = int(torch.cuda.memory_allocated(device))
        torch.cuda.reset_peak_memory_stats(device)
        work(rows)
        torch.cuda.synchronize(device)
        most = int(torch.cuda.max_memory_allocated(device))
        return most - before
    with _Allocations() as allocations:
        work(rows)
    on_cpu: int = allocations.most
    return on_cpu


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, until they are freed.

    A CPU's allocator has no counters. Memory that a kernel allocates and frees within one operation
    is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.most = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        given = [t.untyped_storage() for t in tree_leaves((arguments, options)) if _is_tensor(t)]
        made = operation(*arguments, **(options or {}))
        for tensor in filter(_is_tensor, tree_leaves(made)):
            storage = tensor.untyped_storage()
            if storage not in self._known and not any(storage is one for one in given):
                self._known.add(storage)
                self.held += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.most = max(self.most, self.held)
        return made

    def _free(self, size: int) -> None:
        self.held -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def encode_zeros(encoder: Encoder, rows: int, device: torch.device) -> Batch:
    """Encoded rows of zeros, labelled as normal."""

    batch: Batch = encoder(encoder.make_empty().pad(rows))
    return batch._replace(label=torch.zeros(rows, device=device))


def _count_bytes(module: nn.Module) -> int:
    held = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
