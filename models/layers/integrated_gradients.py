"""What each input added to a score that has no parts of its own: integrated gradients."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def integrated_gradients(
    score: Callable[[Tensor], Tensor], columns: Tensor, reference: Tensor, steps: int
) -> Tensor:
    """Shares [rows, width] of `score(columns) - score(reference)`, which they add up to.

    Gradients along the straight line from the reference row [width] to each row, by Gauss-Legendre
    quadrature of `steps` nodes (Sundararajan et al., ICML 2017). The nodes are denser near the
    reference, where a score that saturates has its slope. What the quadrature leaves over goes to
    the inputs by their squared distance from the reference.

    `score` maps [rows, width] to [rows], each row by itself.
    """
    # The caller may be in inference mode, whose tensors no gradient can pass.
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
    """Positions and weights of the quadrature on [0, 1], after the substitution s = u^2."""
    points, weights = np.polynomial.legendre.leggauss(steps)
    u = (points + 1) / 2
    return list(zip((u**2).tolist(), (weights * u).tolist(), strict=True))


def _compute_gradient(score: Callable[[Tensor], Tensor], columns: Tensor) -> Tensor:
    with torch.enable_grad():
        columns = columns.detach().requires_grad_()
        # Rows are independent, so the gradient of the sum holds the gradient of each row.
        return torch.autograd.grad(score(columns).sum(), columns)[0]
