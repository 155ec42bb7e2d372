"""All uses of torch's private parts, each with its reason.

`tests/models/test_private_torch.py` fails when torch's version or one of these parts changes: read
the new torch's source, mend this file, then raise CHECKED_AGAINST.
"""

import torch
from torch import Tensor

# The only hook into every operation, and the way to the tensors in its arguments. A CPU's
# allocator keeps no account of its own, so `models.training.memory` counts with them.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_leaves as tree_leaves

CHECKED_AGAINST = "2.13.0"

# The operator that torch.compile uses for a linear layer on a CPU; builds without MKL-DNN lack it.
HAS_FUSED_LINEAR = hasattr(torch.ops.mkldnn, "_linear_pointwise")


def run_fused_linear(values: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """Product, bias and activation ("gelu", "relu", "none") in one operation, without gradients
    (docs/decisions/fast-cpu-scoring.md)."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, activation, [], "none")
    return out
