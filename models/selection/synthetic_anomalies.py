"""Make anomalies from normal rows, to try detectors on when no row is labelled.

These are two of the four kinds of Han et al., "ADBench", NeurIPS 2022, section 3.3, without the
fitted densities, which would take longer than the detectors (docs/decisions/auto-choice.md).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from models.batch import Batch
from models.layout import Layout

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
    drawn = rows.numeric + noise * torch.randn(rows.numeric.shape, generator=generator)
    numeric = torch.where(_find_binaries(layout), 1 - rows.numeric, drawn)
    signals = [s + noise * torch.randn(s.shape, generator=generator) for s in rows.signals]
    changed = _scatter_all(rows, layout, generator)._replace(
        numeric=numeric, signals=_keep_form(rows, signals, layout, generator)
    )
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

    numeric = torch.where(_find_binaries(layout), 1 - rows.numeric, uniform(rows.numeric))
    drawn = [codes(rows.codes[:, j], c.size) for j, c in enumerate(layout.categories)]
    return Batch(
        numeric,
        torch.stack(drawn, 1) if drawn else rows.codes,
        None,
        _keep_form(rows, [uniform(signal) for signal in rows.signals], layout, generator),
        tuple(
            torch.where(t > 0, codes(t, c.size), 0)
            for t, c in zip(rows.tokens, layout.tokens, strict=True)
        ),
    )


def _find_binaries(layout: Layout) -> Tensor:
    """Which numeric columns are 0 or 1: bool [numeric columns]."""
    kinds = [column.kind == "binary" for column in layout.numeric]
    return torch.tensor(kinds, dtype=torch.bool)  # without the type, no columns would be float32


def _keep_form(
    rows: Batch, changed: list[Tensor], layout: Layout, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """The changed signals, with the masks of the rows and 0 in the padding.

    A series is changed in its last steps only, one to an eighth of all: a window slides, so it
    meets an anomaly at its end. If all steps were changed, every detector would see it.
    """
    kept = []
    for signal, own, new in zip(layout.signals, rows.signals, changed, strict=True):
        if signal.kind == "series":
            steps = signal.shape[1]
            ends = own[:, -1:] > 0 if signal.masked else torch.ones_like(own[:, -1:]) > 0
            place = torch.arange(steps).expand_as(ends)
            last = torch.where(ends, place, -1).amax(2, keepdim=True)
            length = torch.randint(1, max(1, steps // 8) + 1, last.shape, generator=generator)
            new = torch.where(ends & (place > last - length), new, own)
        if signal.masked:
            new = torch.cat([new[:, :-1], own[:, -1:]], 1)
        kept.append(new)
    return tuple(kept)


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
