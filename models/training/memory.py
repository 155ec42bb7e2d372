"""The memory that a detector takes, measured on the device: bytes of its weights, bytes a row."""

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.private_torch import TorchDispatchMode, tree_leaves

# Rows of the larger of two measured batches, and no more than a chunk: below some hundred, what a
# batch takes whatever its size hides what a row takes; a chunk of images is 100 MiB of activations.
_ROWS = 512
# AdamW keeps two moments of each weight, and there is a gradient.
_COPIES_IN_TRAINING = 3


@dataclass(frozen=True)
class Footprint:
    """Bytes that are allocated at most while a batch is computed."""

    weights: int  # of encoder and detector, with their gradients and moments in training
    fixed: int  # of any batch
    row: int  # of each row in the batch

    def bytes_of(self, rows: int) -> int:
        """While a batch of so many rows is computed."""
        return self.weights + self.fixed + self.row * rows

    def rows_in(self, room: int) -> int:
        """Rows of the largest batch that fits so many bytes; 0 where none does."""
        return max(0, room - self.weights - self.fixed) // max(1, self.row)


def measure_scoring(encoder: Encoder, detector: Detector, device: torch.device) -> Footprint:
    """What `Detector.score` takes, with the encoding before it."""
    encoder, detector = encoder.to(device).eval(), detector.to(device).eval()

    def score(rows: int) -> None:
        with torch.inference_mode():
            detector.score(encode_zeros(encoder, rows, device))

    most = encoder.layout.chunk_rows
    return _of(score, _bytes(encoder) + _bytes(detector), most, device)


def measure_training(encoder: Encoder, detector: Detector, device: torch.device) -> Footprint:
    """What a step of training takes; the detector is left as it was."""
    encoder, learner = encoder.to(device).eval(), copy.deepcopy(detector).to(device).train()
    weights = _bytes(encoder) + (1 + _COPIES_IN_TRAINING) * _bytes(learner)
    most = encoder.layout.chunk_rows
    return _of(lambda rows: _step(encoder, learner, rows, device), weights, most, device)


def find_largest_step(encoder: Encoder, detector: Detector, rows: int, device: torch.device) -> int:
    """Rows of the largest training step, at most `rows`, that a CUDA device has memory for."""
    learner = copy.deepcopy(detector).train()
    return find_largest_batch(lambda some: _step(encoder, learner, some, device), rows)


def _step(encoder: Encoder, learner: Detector, rows: int, device: torch.device) -> None:
    """Gradients of a batch, which are let go when the next one's are made."""
    learner.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
        losses = learner.loss(encode_zeros(encoder, rows, device)).float()
    losses.sum().backward()  # type: ignore[no-untyped-call]


def find_largest_batch(work: Callable[[int], object], most: int) -> int:
    """Rows of the largest batch that `work` does without running out of the device's memory:
    `most`, or a power of two that is doubled until it does. 0 where one row is too many.

    On CUDA only: a CPU that runs out of memory ends the process; there, use `Footprint.rows_in`.
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


def _of(work: Callable[[int], None], weights: int, most: int, device: torch.device) -> Footprint:
    """Two batches tell apart what each row takes and what any batch does."""
    rows = max(1, min(_ROWS, most) // 2)
    work(rows)  # what is allocated once and kept is there from now on
    small, large = (_peak(work, some, device) for some in (rows, 2 * rows))
    row = max(1, -(-(large - small) // rows))
    return Footprint(weights, max(0, small - row * rows), row)


def _peak(work: Callable[[int], None], rows: int, device: torch.device) -> int:
    """The most bytes that were allocated at once beyond those before."""
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
    """Counts the bytes of the storages that operations make, until they are let go.

    A CPU's allocator keeps no account of its own. What a kernel takes and gives back inside one
    operation is not seen.
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
                weakref.finalize(storage, self._let_go, storage.nbytes())
        self.most = max(self.most, self.held)
        return made

    def _let_go(self, size: int) -> None:
        self.held -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def encode_zeros(encoder: Encoder, rows: int, device: torch.device) -> Batch:
    """Encoded rows of zeros, labelled as normal."""

    def fill(tensor: Tensor) -> Tensor:
        return tensor.new_zeros(rows, *tensor.shape[1:])

    batch: Batch = encoder(encoder.make_empty().map(fill).to(device))
    return batch._replace(label=torch.zeros(rows, device=device))


def _bytes(module: nn.Module) -> int:
    held = [*module.parameters(), *module.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
