"""Encoded rows: the output of an encoder and the input of a detector."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models.evidence import Array, Evidence
from models.layout import Layout
from models.refusal import Refusal


class Batch(NamedTuple):
    """Encoded rows on one device.

    >>> batch = Batch(torch.zeros(3, 2), torch.zeros(3, 0, dtype=torch.int64))
    >>> batch.take(slice(2)).numeric.shape
    torch.Size([2, 2])
    """

    numeric: Tensor  # float32 [rows, len(layout.numeric)]
    codes: Tensor  # int64 [rows, len(layout.categories)]; 0 is "other", 1 is null
    label: Tensor | None = None  # float32 [rows]; 1 is an anomaly, NaN is unknown
    signals: tuple[Tensor, ...] = ()  # float32 [rows, *shape] each, as in `layout.signals`
    tokens: tuple[Tensor, ...] = ()  # int64 [rows, length] each; 0 is padding, 1 is "other"

    def to(self, device: torch.device | str) -> "Batch":
        return self.map(lambda tensor: tensor.to(device))

    def take(self, rows: Tensor | slice) -> "Batch":
        """The rows at the given indices, or those where a mask is true."""
        return self.map(lambda tensor: tensor[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch after `change` was applied to every tensor."""
        return Batch(
            change(self.numeric),
            change(self.codes),
            None if self.label is None else change(self.label),
            tuple(map(change, self.signals)),
            tuple(map(change, self.tokens)),
        )

    def check(self, layout: Layout) -> None:
        """Raise Refusal unless the batch has the inputs and types of a layout.

        The range of the codes is checked only on a CPU: on a GPU the check would wait for the
        device. Nothing is checked in a graph that is exported.
        """
        if torch.onnx.is_in_onnx_export():
            return
        wanted = (len(layout.numeric), torch.float32, len(layout.categories), torch.int64)
        found = (*_describe(self.numeric), *_describe(self.codes))
        if wanted != found or len(self.numeric) != len(self.codes):
            raise Refusal(
                f"expected a batch of {wanted[0]} numeric columns ({wanted[1]}) and {wanted[2]} "
                f"columns of codes ({wanted[3]}), found {found[0]} ({found[1]}) and {found[2]} "
                f"({found[3]}), with {len(self.numeric)} and {len(self.codes)} rows; encode "
                f"the rows with the encoder that the detector was trained with"
            )
        self._check_shapes(layout)
        if layout.categories and len(self.codes) and self.codes.device.type == "cpu":
            codes = self.codes.T
            ends = zip(codes.amin(1).tolist(), codes.amax(1).tolist(), strict=True)
            for category, (least, most) in zip(layout.categories, ends, strict=True):
                if least < 0 or most >= category.size:
                    raise _refuse_codes(category.name, category.size)
        for token_input, tokens in zip(layout.tokens, self.tokens, strict=True):
            if tokens.numel() and tokens.device.type == "cpu":
                low, high = tokens.aminmax()
                if low < 0 or high >= token_input.size:
                    raise _refuse_codes(token_input.name, token_input.size)

    def _check_shapes(self, layout: Layout) -> None:
        rows = len(self.numeric)
        wanted = [
            *((s.name, (rows, *s.shape), torch.float32) for s in layout.signals),
            *((t.name, (rows, t.length), torch.int64) for t in layout.tokens),
        ]
        tensors = (*self.signals, *self.tokens)
        found = [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]
        if found != [(shape, dtype) for _, shape, dtype in wanted]:
            raise Refusal(
                f"expected signals and tokens {wanted}, found {found}; encode the rows with the "
                "encoder that the detector was trained with"
            )


def join(batches: Sequence[Batch]) -> Batch:
    """Concatenate batches. The result has labels if every batch has labels."""
    labels = [b.label for b in batches if b.label is not None]
    return Batch(
        torch.cat([b.numeric for b in batches]),
        torch.cat([b.codes for b in batches]),
        torch.cat(labels) if len(labels) == len(batches) else None,
        tuple(map(torch.cat, zip(*(b.signals for b in batches), strict=True))),
        tuple(map(torch.cat, zip(*(b.tokens for b in batches), strict=True))),
    )


def _refuse_codes(name: str, size: int) -> Refusal:
    return Refusal(
        f"expected codes of '{name}' from 0 to {size - 1}, found others; encode the rows with the "
        "encoder that the detector was trained with"
    )


def _describe(tensor: Tensor) -> tuple[int, torch.dtype]:
    return (tensor.shape[1] if tensor.ndim == 2 else -1), tensor.dtype


class Contributions(NamedTuple):
    """The share of each feature in the score of each row."""

    shares: Tensor  # float32 [rows, len(layout.features)], in the unit of the score
    expected: Batch  # the encoded rows that the detector expected instead
    # The share of each place in a feature: float32 [rows, *shape] of each signal, then
    # [rows, length] of each token input. The places add up to the share of the feature, except for
    # a part that belongs to no place.
    maps: tuple[Tensor, ...] = ()

    def to_evidence(self, scored: Batch) -> Evidence:
        """The contributions to the scores of this batch, as arrays."""
        expected = self.expected
        return Evidence(
            _to_array(self.shares),
            _to_array(expected.numeric),
            _to_array(expected.codes),
            *(
                tuple(map(_to_array, group))
                for group in (expected.signals, expected.tokens, self.maps, scored.signals)
            ),
        )


def _to_array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().numpy()
