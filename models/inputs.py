"""Encoded rows as one dense matrix: numeric columns, then each category one-hot or embedded."""

import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from models.detector import Batch, Layout

# Scaled values beyond this say nothing more, and their squares and products stay far inside
# float32: an encoder column may be left unclipped (`clip: null`), and hold up to 3e38.
LIMIT = 1e4

# Codes are in order of frequency; in one-hot form the rare ones of a large vocabulary join
# "other": 20 categories of 10,000 values would be 200,000 columns wide.
MAX_ONEHOT = 256


class Inputs(nn.Module):
    """A batch as one matrix, float32 [rows, width].

    With `embed`, categories that ask for an embedding get a learned one; without, every category
    is one-hot over at most MAX_ONEHOT codes.
    """

    code: Tensor
    caps: Tensor

    def __init__(self, layout: Layout, embed: bool) -> None:
        super().__init__()
        self.layout = layout
        self.embedded = [bool(embed and c.embedding) for c in layout.categories]
        caps = [c.size if embed else min(c.size, MAX_ONEHOT) for c in layout.categories]
        self.sizes = [
            c.embedding if embedded else cap
            for c, cap, embedded in zip(layout.categories, caps, self.embedded, strict=True)
        ]
        self.width = len(layout.numeric) + sum(self.sizes)
        self.capped = any(cap < c.size for c, cap in zip(layout.categories, caps, strict=True))
        tables = [
            nn.Embedding(c.size, c.embedding)
            for c, embedded in zip(layout.categories, self.embedded, strict=True)
            if embedded
        ]
        for table in tables:
            # "Other" is seldom or never trained on: it starts as no information, not as noise.
            nn.init.zeros_(table.weight.data[0])
        self.embeddings = nn.ModuleList(tables)
        widest = max(self.sizes, default=0)
        self.register_buffer("code", torch.arange(widest)[:, None], persistent=False)
        self.register_buffer("caps", torch.tensor(caps, dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The matrix. Raises Refusal for a batch of another layout."""
        return self.columns(batch).T

    def columns(self, batch: Batch) -> Tensor:
        """The matrix as [width, rows], each column of it in one piece of memory.

        Per-column work (scaling, one-hot, softmax over a category, sums over features) then goes
        along rows: a softmax over 14 codes took 9 ns a row instead of 172 on a CPU.
        """
        self.layout.check(batch)
        codes = batch.codes.T
        if self.capped:
            codes = torch.where(codes < self.caps[:, None], codes, 0)
        tables = iter(self.embeddings)
        blocks = [
            next(tables)(codes[j]).T if embedded else (codes[j] == self.code[:size]).float()
            for j, (size, embedded) in enumerate(zip(self.sizes, self.embedded, strict=True))
        ]
        return torch.cat([batch.numeric.T.clamp(-LIMIT, LIMIT), *blocks])

    def by_feature(self, columns: Tensor) -> Tensor:
        """Sum [rows, width] over the columns of each feature: [rows, len(layout.features)]."""
        n = len(self.layout.numeric)
        blocks = torch.split(columns[:, n:], self.sizes, 1) if self.sizes else ()
        return torch.cat([columns[:, :n], *(b.sum(1, keepdim=True) for b in blocks)], 1)

    def row(self, columns: Tensor) -> Batch:
        """One-hot columns [rows, width] back as a batch: of each category the largest column."""
        if any(self.embedded):
            raise TypeError("embedded categories cannot be read back from their columns")
        n = len(self.layout.numeric)
        blocks = torch.split(columns[:, n:], self.sizes, 1) if self.sizes else ()
        codes = [b.argmax(1) for b in blocks]
        return Batch(columns[:, :n], stack_codes(codes, columns))


def stack_codes(codes: list[Tensor], like: Tensor) -> Tensor:
    """Columns of codes as int64 [rows, columns], also when there are none."""
    if codes:
        return torch.stack(codes, 1)
    return torch.zeros((len(like), 0), dtype=torch.int64, device=like.device)


def mlp(widths: tuple[int, ...]) -> nn.ModuleList:
    """Linear layers from widths[0] to widths[-1]; `run` puts an activation and
    dropout between them."""
    return nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))


Activation = Literal["gelu", "relu"]


def run(
    layers: nn.ModuleList, values: Tensor, dropout: float = 0.0, activation: Activation = "gelu"
) -> Tensor:
    """Pass values [rows, width] through `mlp` layers.

    Dropout is the caller's word, not the module's mode. Where no gradient is asked for on a CPU,
    oneDNN does product, bias and GELU in one pass, with the CPU's own widest instructions: 146 ns
    a row of a 35-64-32-8-32-64-35 network, against 256 ns layer by layer (and 188 ns in
    onnxruntime); the outputs differ in their last bits only.
    """
    fused = _fuses(values) and not dropout
    for layer in layers[:-1]:
        if fused:
            values = _fused(layer, values, activation)
            continue
        values = getattr(nn.functional, activation)(layer(values))
        if dropout:
            values = nn.functional.dropout(values, dropout, training=True)
    out: Tensor = _fused(layers[-1], values, "none") if fused else layers[-1](values)
    return out


def _fuses(values: Tensor) -> bool:
    return (
        values.device.type == "cpu"
        and values.dtype == torch.float32
        and len(values) > 0
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def _fused(layer: nn.Module, values: Tensor, activation: str) -> Tensor:
    # The operator that torch.compile itself uses for a linear layer on a CPU.
    out: Tensor = torch.ops.mkldnn._linear_pointwise(
        values, layer.weight, layer.bias, activation, [], "none"
    )
    return out
