"""Encoded rows as one dense matrix: numeric columns, then each category one-hot or embedded."""

import itertools

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

    block: Tensor
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
        # One-hot column k is `codes[:, block[k]] == code[k]`: one comparison for all categories.
        pairs = [
            (j, k)
            for j, (size, embedded) in enumerate(zip(self.sizes, self.embedded, strict=True))
            if not embedded
            for k in range(size)
        ]
        index = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
        self.register_buffer("block", index[:, 0].contiguous(), persistent=False)
        self.register_buffer("code", index[:, 1].contiguous(), persistent=False)
        self.register_buffer("caps", torch.tensor(caps, dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The matrix. Raises Refusal for a batch of another layout."""
        self.layout.check(batch)
        codes = batch.codes
        if self.capped:
            codes = torch.where(codes < self.caps, codes, 0)
        onehot = (codes.index_select(1, self.block) == self.code).to(torch.float32)
        return torch.cat([batch.numeric.clamp(-LIMIT, LIMIT), *self._blocks(onehot, codes)], 1)

    def _blocks(self, onehot: Tensor, codes: Tensor) -> list[Tensor]:
        if not len(self.embeddings):
            return [onehot]
        tables = iter(self.embeddings)
        widths = [s for s, e in zip(self.sizes, self.embedded, strict=True) if not e]
        columns = iter(torch.split(onehot, widths, 1))
        return [
            next(tables)(codes[:, j]) if embedded else next(columns)
            for j, embedded in enumerate(self.embedded)
        ]

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
    """Linear layers from widths[0] to widths[-1]; `run` puts GELU and dropout between them."""
    return nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))


def run(layers: nn.ModuleList, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Pass values through `mlp` layers. Dropout is the caller's word, not the module's mode."""
    for layer in layers[:-1]:
        values = nn.functional.gelu(layer(values))
        if dropout:
            values = nn.functional.dropout(values, dropout, training=True)
    out: Tensor = layers[-1](values)
    return out
