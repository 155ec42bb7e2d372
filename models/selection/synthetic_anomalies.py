"""Make anomalies from normal rows, to try detectors on when no row is labelled.

These are two of the four kinds of Han et al., "ADBench", NeurIPS 2022, section 3.3, without the
fitted densities, which would take longer than the detectors (docs/decisions/auto-choice.md).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.batch import Batch, Layout

# Share of a row's features that are changed. If all were, every detector would see it.
_SHARE = 0.3
_NOISE = 2.0  # standard deviation of the noise on a real number, in scaled units


def add_noise(
    rows: Batch,
    layout: Layout,
    generator: torch.Generator,
    share: float = _SHARE,
    noise: float = _NOISE,
) -> Batch:
    """Add noise to some features of each row ("local anomalies"); categories are replaced."""
    drawn = noise * torch.randn(rows.numeric.shape, generator=generator)
    binary = torch.tensor([column.kind == "binary" for column in layout.numeric])
    numeric = torch.where(binary, 1 - rows.numeric, rows.numeric + drawn)
    signals = tuple(s + noise * torch.randn(s.shape, generator=generator) for s in rows.signals)
    changed = _scatter_all(rows, layout, generator)._replace(numeric=numeric, signals=signals)
    return _mix_features(rows, changed, layout, generator, share)


def scatter(
    rows: Batch, layout: Layout, generator: torch.Generator, share: float = _SHARE
) -> Batch:
    """Replace some features of each row by random values in their range ("global anomalies")."""
    return _mix_features(rows, _scatter_all(rows, layout, generator), layout, generator, share)


Planting = Callable[[Batch, Layout, torch.Generator], Batch]
KINDS: dict[str, Planting] = {"noisy": add_noise, "scattered": scatter}
# Fainter and stronger ones too, since nobody knows how strong real anomalies will be: a detector
# must be better by more than its figures differ between these.
PLANTINGS: tuple[Planting, ...] = (
    *(partial(add_noise, share=share) for share in (0.1, 0.3, 0.6)),
    *(partial(add_noise, noise=noise) for noise in (1.0, 4.0)),
    *(partial(scatter, share=share) for share in (0.1, 0.3, 0.6)),
)


def _scatter_all(rows: Batch, layout: Layout, generator: torch.Generator) -> Batch:
    """Rows in which every feature is uniform in its range, independently of the others."""

    def uniform(values: Tensor) -> Tensor:
        low, high = values.amin(0), values.amax(0)
        return low + (high - low) * torch.rand(values.shape, generator=generator)

    def codes(like: Tensor, size: int) -> Tensor:
        return torch.randint(min(1, size - 1), size, like.shape, generator=generator)

    numeric = uniform(rows.numeric)
    binary = torch.tensor([column.kind == "binary" for column in layout.numeric])
    numeric = torch.where(binary, 1 - rows.numeric, numeric)
    drawn = [codes(rows.codes[:, j], c.size) for j, c in enumerate(layout.categories)]
    return Batch(
        numeric,
        torch.stack(drawn, 1) if drawn else rows.codes,
        None,
        tuple(map(uniform, rows.signals)),
        tuple(codes(t, c.size) for t, c in zip(rows.tokens, layout.tokens, strict=True)),
    )


def _mix_features(
    rows: Batch, others: Batch, layout: Layout, generator: torch.Generator, share: float
) -> Batch:
    """Each row with a random share of its features, at least one, from the same row of `others`."""
    count, features = len(rows.numeric), len(layout.features)
    chosen = torch.rand(count, features, generator=generator)
    chosen = chosen <= torch.maximum(chosen.amin(1, keepdim=True), torch.tensor(share))
    n, c = len(layout.numeric), len(layout.categories)

    def pick(own: Tensor, other: Tensor, which: Tensor) -> Tensor:
        return torch.where(which.reshape(-1, *[1] * (own.ndim - 1)), other, own)

    inner = [*zip(rows.signals, others.signals, strict=True)]
    signals = tuple(pick(a, b, chosen[:, n + c + i]) for i, (a, b) in enumerate(inner))
    tokens = tuple(
        pick(a, b, chosen[:, n + c + len(inner) + i])
        for i, (a, b) in enumerate(zip(rows.tokens, others.tokens, strict=True))
    )
    return Batch(
        torch.where(chosen[:, :n], others.numeric, rows.numeric),
        torch.where(chosen[:, n : n + c], others.codes, rows.codes),
        None,
        signals,
        tokens,
    )
