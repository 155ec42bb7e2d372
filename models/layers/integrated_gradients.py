"""Integrated gradients: what each input added to a score that is not a sum of terms."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def integrated_gradients(
    score: Callable[[Tensor], Tensor], columns: Tensor, reference: Tensor, steps: int
) -> Tensor:
    """Shares [rows, width] that add up to `score(columns) - score(reference)` in each row.

    Sundararajan et al., ICML 2017: gradients along the straight line from the reference row [width]
    to each row, integrated by Gauss-Legendre quadrature with `steps` nodes. The nodes are denser
    near the reference, where a score that saturates changes most. The error of the quadrature is
    divided among the inputs by their squared distance from the reference.

    `score` maps [rows, width] to [rows], each row independently of the others.

    >>> rows, reference = torch.tensor([[1.0, 2.0]]), torch.zeros(2)
    >>> integrated_gradients(lambda x: 3 * x[:, 0] + x[:, 1], rows, reference, steps=8)
    tensor([[3., 2.]])
    """
    # Inference mode, in which the caller may be, does not track gradients.
    with torch.inference_mode(False), torch.no_grad():
        columns, reference = columns.clone(), reference.clone()
        away = columns - reference
        slope = torch.zeros_like(away)
        for position, weight in _place_nodes(steps):
            slope += weight * _compute_gradient(score, reference + position * away)
        shares = slope * away
        left_over = score(columns) - score(reference[None]) - shares.sum(1)
        far = away.square() + torch.finfo(away.dtype).tiny
        return shares + left_over[:, None] * (far / far.sum(1, keepdim=True))


def _place_nodes(steps: int) -> list[tuple[float, float]]:
    """Positions and weights of the quadrature on [0, 1], substituting s = u^2."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    u = (points + 1) / 2
    return list(zip((u**2).tolist(), (weights * u).tolist(), strict=True))


def _compute_gradient(score: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
    with torch.enable_grad():
        columns = columns.detach().requires_grad_()
        # Rows are independent: the gradient of the sum contains the gradient of each row.
        return torch.autograd.grad(score(columns).sum(), columns)[0]
