"""A second device for machines without a GPU: its tensors hold their numbers on the CPU, and no
operation takes tensors of both devices. What a detector leaves behind when it moves is found with
it, and how often a program waits for the device.

    with pretending() as device:
        detector.to(DEVICE).score(rows.to(DEVICE))
    assert device.waits == 0
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

_NAME = "pretend"
_CPU = torch.device("cpu")
_AT = torch.ops.aten
_WAITS = (_AT._local_scalar_dense.default, _AT.nonzero.default, _AT.equal.default)


class MixedDevices(Exception):
    """An operation was given tensors of two devices."""


class _Backend(_DummyBackendModule):
    """What torch asks the module of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


_setup_privateuseone_for_python_backend(_NAME, _Backend())
DEVICE = torch.device(_NAME, 0)


class _Moved(Tensor):
    """A tensor on the device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> "_Moved":
        made: _Moved = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), None, held.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.held = held
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{func} of a pretended device outside of `pretending`")


class Pretending(TorchDispatchMode):
    """Runs what is called on the device, and counts the waits for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        here = all(not isinstance(tensor, _Moved) for tensor in tensors)
        if func is _AT.copy_.default:
            asked = args[0].device
        else:
            asked = torch.device(kwargs["device"]) if kwargs.get("device") else None
            # A number of the CPU may go along, as on CUDA.
            beside = [t for t in tensors if not isinstance(t, _Moved) and t.ndim]
            if not here and beside:
                raise MixedDevices(f"{func}: {[tuple(t.shape) for t in tensors]}")
        back = asked is not None and asked.type == "cpu"
        later = func is _AT.copy_.default and len(args) > 2 and args[2]  # without waiting
        self.waits += not here and (back or func in _WAITS) and not later
        if "device" in kwargs:
            kwargs["device"] = _CPU
        run: Callable[..., Any] = _KERNELS.get(func, func)
        out = run(*_unwrap(args), **_unwrap(kwargs))
        if back or (here and (asked is None or asked.type != _NAME)):
            return args[0] if func is _AT.copy_.default else out
        moved = tree_map_only(Tensor, _Moved, out)
        return return_and_correct_aliasing(func, args, kwargs, moved)  # type: ignore[no-untyped-call]


def _unwrap(values: Any) -> Any:
    return tree_map_only(_Moved, lambda tensor: tensor.held, values)


def _run_gru_cell(
    inputs: Tensor, hidden: Tensor, state: Tensor, input_bias: Tensor, hidden_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The fused cell of GPUs, which the CPU lacks."""
    (a, b, c), (d, e, f) = (inputs + input_bias).chunk(3, 1), (hidden + hidden_bias).chunk(3, 1)
    reset, update = (a + d).sigmoid(), (b + e).sigmoid()
    new = (c + reset * f).tanh()
    return new + update * (state - new), torch.cat([reset, update, new, state, f], 1)


def _run_gru_cell_backward(
    gradient: Tensor, workspace: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    reset, update, new, state, f = workspace.chunk(5, 1)
    of_new = gradient * (1 - update) * (1 - new.square())
    of_update = gradient * (state - new) * update * (1 - update)
    of_reset = of_new * f * reset * (1 - reset)
    inputs = torch.cat([of_reset, of_update, of_new], 1)
    hidden = torch.cat([of_reset, of_update, of_new * reset], 1)
    return inputs, hidden, gradient * update, inputs.sum(0), hidden.sum(0)


_KERNELS = {
    _AT._thnn_fused_gru_cell.default: _run_gru_cell,
    _AT._thnn_fused_gru_cell_backward.default: _run_gru_cell_backward,
}


@contextmanager
def pretending() -> Iterator[Pretending]:
    """The device exists in the block."""
    with Pretending() as device:
        yield device
