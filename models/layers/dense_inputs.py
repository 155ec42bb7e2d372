"""Encoded rows as one dense matrix, for every kind of column.

Numbers come first: the numeric columns, all numbers of each signal, and the frequency of each code
of each token input. Then each category, one-hot or embedded. So every detector of tables also
works on images and texts, as a baseline.
"""

import math

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.layout import Layout, TokenInput

# Scaled values are clamped here, so that their squares and products fit float32: a column without
# clipping (`clip: null`) may hold values up to 3e38.
LIMIT = 1e4

# One-hot columns of a category at most. Codes are in order of frequency, and rarer ones count as
# "other": 20 categories of 10,000 values would be 200,000 columns wide.
MAX_ONEHOT = 256


class Inputs(nn.Module):
    """Turns a batch into one matrix, float32 [rows, width].

    With `embed`, categories that ask for an embedding get a learned one; without, every category
    is one-hot, with at most MAX_ONEHOT codes.
    """

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
        self.blocks = [s.width for s in layout.signals] + [_limit_codes(t) for t in layout.tokens]
        self.numbers = len(layout.numeric) + sum(self.blocks)  # columns before the categories
        self.width = self.numbers + sum(self.sizes)
        self.capped = any(cap < c.size for c, cap in zip(layout.categories, caps, strict=True))
        tables = [
            nn.Embedding(c.size, c.embedding)
            for c, embedded in zip(layout.categories, self.embedded, strict=True)
            if embedded
        ]
        for table in tables:
            # Few or no training rows have "other": it starts as 0, not as noise.
            nn.init.zeros_(table.weight.data[0])
        self.embeddings = nn.ModuleList(tables)
        self.register_buffer("caps", torch.tensor(caps, dtype=torch.int64), persistent=False)

    def forward(self, batch: Batch) -> Tensor:
        """The matrix [rows, width]. Raises Refusal for a batch of another layout."""
        return self.make_columns(batch).T

    def make_columns(self, batch: Batch) -> Tensor:
        """The transposed matrix [width, rows], in which each column is contiguous in memory.

        Work on single columns (one-hot, softmax over a category, sums over features) is faster in
        this order (docs/decisions/fast-cpu-scoring.md).
        """
        batch.check(self.layout)
        codes = batch.codes.T
        if self.capped:
            codes = torch.where(codes < self.caps[:, None], codes, 0)
        tables = iter(self.embeddings)
        blocks = [
            next(tables)(codes[j]).T if embedded else one_hot(codes[j], size)
            for j, (size, embedded) in enumerate(zip(self.sizes, self.embedded, strict=True))
        ]
        signals = [s.flatten(1).T.clamp(-LIMIT, LIMIT) for s in batch.signals]
        tokens = [block.T for block in self.make_token_columns(batch)]
        return torch.cat([batch.numeric.T.clamp(-LIMIT, LIMIT), *signals, *tokens, *blocks])

    def make_token_columns(self, batch: Batch) -> list[Tensor]:
        """The block of columns of each token input: [rows, width of the block] each."""
        pairs = zip(self.layout.tokens, batch.tokens, strict=True)
        return [_make_bag(token_input, tokens) for token_input, tokens in pairs]

    def map_tokens(self, blocks: list[Tensor], batch: Batch) -> list[Tensor]:
        """Divide shares of the blocks of `make_token_columns` among places: [rows, length] each."""
        parts = zip(self.layout.tokens, batch.tokens, blocks, strict=True)
        return [
            _share_among_places(token_input, tokens, block) for token_input, tokens, block in parts
        ]

    def mask_padding(self, columns: Tensor) -> Tensor | None:
        """Which numbers of the columns [numbers, rows] are data: float32 of the same shape.

        It is 0 where a masked signal is padded and in the mask itself, else 1. None if no signal is
        masked.
        """
        if not any(signal.masked for signal in self.layout.signals):
            return None
        counted = torch.ones_like(columns)
        start = len(self.layout.numeric)
        for signal in self.layout.signals:
            if signal.masked:
                block = slice(start, start + signal.width)
                shape = (signal.shape[0], math.prod(signal.shape[1:]), columns.shape[1])
                mask = columns[block].reshape(shape)[-1:]
                counted[block] = torch.cat([mask.expand(shape[0] - 1, -1, -1), 0 * mask]).flatten(
                    0, 1
                )
            start += signal.width
        return counted

    def sum_by_feature(self, columns: Tensor) -> Tensor:
        """The sum over the columns of each feature: [rows, len(layout.features)].

        `columns` is [rows, width], or has one column for each category after the numbers.
        """
        numeric, inner, categories = self.split(columns)
        sums = [b.sum(1, keepdim=True) for b in (*categories, *inner)]
        return torch.cat([numeric, *sums], 1)

    def map_places(self, columns: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Shares as in `sum_by_feature`, laid out as `Contributions.maps`.

        The share of a code that a row does not have belongs to no place and is left out.
        """
        _, inner, _ = self.split(columns)
        layout = self.layout
        signals = [
            block.reshape(-1, *signal.shape)
            for block, signal in zip(inner, layout.signals, strict=False)
        ]
        return (*signals, *self.map_tokens(inner[len(signals) :], batch))

    def decode(self, columns: Tensor) -> Batch:
        """The batch of one-hot columns [rows, width]; each category is its largest column.

        Tokens are all padding, since frequencies do not give an order.
        """
        if any(self.embedded):
            raise TypeError("embedded categories cannot be read back from their columns")
        _, _, categories = self.split(columns)
        return self.make_batch(columns, stack_codes([b.argmax(1) for b in categories], columns))

    def make_batch(self, columns: Tensor, codes: Tensor) -> Batch:
        """A batch of the numbers in `columns` and of `codes`; tokens are all padding.

        `columns` is [rows, at least self.numbers], `codes` int64 [rows, categories].
        """
        numeric, inner, _ = self.split(columns)
        signals = tuple(
            block.reshape(-1, *signal.shape)
            for block, signal in zip(inner, self.layout.signals, strict=False)
        )
        tokens = tuple(
            torch.zeros(len(columns), t.length, dtype=torch.int64, device=columns.device)
            for t in self.layout.tokens
        )
        return Batch(numeric, codes, None, signals, tokens)

    def split(self, columns: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The numeric columns, the blocks of signals and tokens, the blocks of categories."""
        n = len(self.layout.numeric)
        inner = torch.split(columns[:, n : self.numbers], self.blocks, 1) if self.blocks else ()
        rest = columns[:, self.numbers :]
        categories: tuple[Tensor, ...] = ()
        if self.sizes and rest.shape[1]:
            whole = rest.shape[1] == sum(self.sizes)
            categories = torch.split(rest, self.sizes if whole else 1, 1)
        return columns[:, :n], list(inner), list(categories)


def _limit_codes(tokens: TokenInput) -> int:
    return min(tokens.size, MAX_ONEHOT)


def _make_bag(token_input: TokenInput, tokens: Tensor) -> Tensor:
    """The frequency of each code in each row, without padding: [rows, codes], adding up to 1."""
    width = _limit_codes(token_input)
    codes = torch.where(tokens < width, tokens, 1)
    bag = torch.zeros(len(codes), width, device=codes.device)
    bag.scatter_add_(1, codes, torch.ones_like(codes, dtype=bag.dtype))
    bag[:, 0] = 0
    return bag / bag.sum(1, keepdim=True).clamp_min(1)


def _share_among_places(token_input: TokenInput, tokens: Tensor, shares: Tensor) -> Tensor:
    """Divide the share of each code among its places: [rows, length]."""
    width = _limit_codes(token_input)
    codes = torch.where(tokens < width, tokens, 1)
    count = torch.zeros_like(shares).scatter_add_(
        1, codes, torch.ones_like(codes, dtype=shares.dtype)
    )
    each = (shares / count.clamp_min(1)).gather(1, codes)
    return torch.where(codes > 0, each, 0)


def one_hot(codes: Tensor, size: int) -> Tensor:
    """One-hot columns [size, rows]; three times as fast as comparing codes, but in onnxruntime."""
    if torch.onnx.is_in_onnx_export():
        return (torch.arange(size)[:, None] == codes).float()
    columns = torch.zeros(size, len(codes), device=codes.device)
    return columns.scatter_(0, codes[None], 1.0)


def stack_codes(codes: list[Tensor], like: Tensor) -> Tensor:
    """Columns of codes as int64 [rows, columns]; `like` gives rows and device if there are none."""
    if codes:
        return torch.stack(codes, 1)
    return torch.zeros((len(like), 0), dtype=torch.int64, device=like.device)
