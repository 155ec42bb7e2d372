"""Reasons of signals and tokens: the place that added most to the score, seen and expected."""

import numpy as np
import numpy.typing as npt
from torch import Tensor

from models.batch import Batch, Layout
from models.columns import FeatureColumn, Text
from models.decoding.texts import tokens_to_text
from models.encoding.raw_batch import RawBatch
from models.encoding.signals import SignalScaling
from models.explaining.places import Words, describe_signal, describe_tokens

Places = npt.NDArray[np.int64]


class SignalWords:
    """Words for signals and tokens, of some rows at a time."""

    def __init__(
        self,
        layout: Layout,
        columns: dict[str, FeatureColumn],
        vocabularies: dict[str, tuple[str, ...]],
        scalings: list[SignalScaling],
    ) -> None:
        self.layout = layout
        self.columns = columns
        self.vocabularies = vocabularies
        self.scalings = scalings

    def of_signal(
        self,
        name: str,
        place: int,
        rows: Places,
        seen: RawBatch,
        expected: Batch,
        maps: tuple[Tensor, ...],
    ) -> list[Words]:
        """Of the signal at this place of the layout, made from the column `name`."""
        given, scaling = self.layout.signals[place], self.scalings[place]
        raw = seen.signals[place][rows]
        wanted = expected.signals[place][rows].cpu().float()
        observed = scaling(raw.to(scaling.centre.device)).cpu()
        # Where a detector tells no places: those that are furthest from what it expected.
        shares = maps[place][rows].cpu() if maps else (observed - wanted).square()
        unscaled = raw.reshape(len(rows), *scaling.raw_shape).double().numpy()
        column = self.columns[name]
        texts: list[str | None] = [None] * len(rows)
        if isinstance(column, Text):
            tokens = seen.tokens[self._tokens(name)][rows].numpy()
            texts = [tokens_to_text(row) for row in tokens]
        parts = zip(
            shares.double().numpy(),
            unscaled,
            scaling.invert(wanted).double().numpy(),
            texts,
            strict=True,
        )
        return [describe_signal(column, given, *part) for part in parts]

    def of_tokens(
        self,
        name: str,
        place: int,
        rows: Places,
        seen: RawBatch,
        expected: Batch,
        maps: tuple[Tensor, ...],
    ) -> list[Words]:
        """Of the tokens at this place of the layout, made from the column `name`."""
        given, vocabulary = self.layout.tokens[place], self.vocabularies.get(name, ())
        observed = seen.tokens[place][rows].long()
        wanted = expected.tokens[place][rows].cpu()
        shares = (observed != wanted).double()
        if maps:
            shares = maps[len(self.layout.signals) + place][rows].cpu().double()
        parts = zip(shares.numpy(), observed.numpy(), wanted.numpy(), strict=True)
        return [describe_tokens(self.columns[name], given, vocabulary, *part) for part in parts]

    def _tokens(self, name: str) -> int:
        return [tokens.name for tokens in self.layout.tokens].index(name)
