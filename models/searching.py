"""A search in sorted numbers that can be exported to ONNX, which has no operator for it."""

import torch
from torch import Tensor


def search_sorted(points: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """`torch.searchsorted` of [q, n] in sorted [q, k]: int64 [q, n]. NaN is exported as 0.

    With `right`, points that equal the value count as before it.
    """
    if not torch.onnx.is_in_onnx_export():
        return torch.searchsorted(points, values, right=right)
    count = int(points.shape[1])  # a tensor while it is traced
    found = torch.zeros_like(values, dtype=torch.int64)
    for step in (1 << bit for bit in reversed(range(count.bit_length()))):
        further = found + step
        point = points.gather(1, (further - 1).clamp(max=count - 1))
        before = point <= values if right else point < values
        found = torch.where(before & (further <= count), further, found)
    return found
