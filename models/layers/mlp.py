"""Multi-layer perceptrons, and the fused kernel that runs them on a CPU."""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from models.private_torch import HAS_FUSED_LINEAR, run_fused_linear

Activation = Literal["gelu", "relu"]


def mlp(widths: tuple[int, ...]) -> nn.ModuleList:
    """Linear layers from widths[0] to widths[-1], for `run`."""
    return nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))


def run(
    layers: nn.ModuleList,
    values: Tensor,
    dropout: float = 0.0,
    activation: Activation = "gelu",
    by_columns: bool = False,
) -> Tensor:
    """Pass values [rows, width] through the layers of `mlp`: [rows, widths[-1]].

    An activation and dropout are applied between the layers. `dropout` is the share of units to
    drop, whatever the mode of the module. With `by_columns` each column of the result is contiguous
    where that is cheap.

    On a CPU and without gradients, product, bias and activation are one fused operation; outputs
    differ from the layers' own in the last bits (docs/decisions/fast-cpu-scoring.md).
    """
    fused = _can_fuse(values) and not dropout
    for layer in layers[:-1]:
        if fused:
            values = _run_fused(layer, values, activation)
            continue
        values = getattr(nn.functional, activation)(layer(values))
        if dropout:
            values = nn.functional.dropout(values, dropout, training=True)
    last = layers[-1]
    if by_columns and (fused or torch.onnx.is_in_onnx_export()):
        return torch.addmm(last.bias[:, None], last.weight, values.T).T  # type: ignore[arg-type, index]
    out: Tensor = _run_fused(last, values, "none") if fused else last(values)
    return out


def _can_fuse(values: Tensor) -> bool:
    return (
        values.device.type == "cpu"
        and values.dtype == torch.float32
        and len(values) > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.onnx.is_in_onnx_export()
        and HAS_FUSED_LINEAR
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _run_fused(layer: nn.Module, values: Tensor, activation: str) -> Tensor:
    return run_fused_linear(values, layer.weight, layer.bias, activation)  # type: ignore[arg-type]
