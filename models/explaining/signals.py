"""Describes the place in a signal or in tokens that added most to the score."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.batch import Batch
from models.columns import FeatureColumn, Text
from models.decoding.texts import tokens_to_text
from models.encoding.raw_batch import RawBatch
from models.encoding.signals import SignalScaling
from models.explaining.places import Usual, Words, describe_signal, describe_tokens
from models.layout import Layout

Places = npt.NDArray[np.int64]


class SignalWords:
    """Describes signals and tokens, several rows at a time."""

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

    def describe_signals(
        self,
        name: str,
        place: int,
        rows: Places,
        raw: RawBatch,
        expected: Batch,
        maps: tuple[Tensor, ...],
    ) -> list[Words]:
        """Describe the signal at this place of the layout, made from the column `name`."""
        signal, scaling = self.layout.signals[place], self.scalings[place]
        values = raw.signals[place][rows]
        wanted = expected.signals[place][rows].cpu().float()
        observed = scaling(values.to(scaling.centre.device)).cpu()
        # Without maps, the places are those that differ most from the expected ones.
        shares = maps[place][rows].cpu() if maps else (observed - wanted).square()
        unscaled = values.reshape(len(rows), *scaling.raw_shape).double().numpy()
        column = self.columns[name]
        texts: list[str | None] = [None] * len(rows)
        if isinstance(column, Text):
            names = [tokens.name for tokens in self.layout.tokens]
            tokens = raw.tokens[names.index(name)][rows].numpy()
            texts = [tokens_to_text(row) for row in tokens]
        parts = zip(
            shares.double().numpy(),
            unscaled,
            scaling.invert(wanted).double().numpy(),
            texts,
            strict=True,
        )
        deviations = torch.tensor([0.0, -2.0, 2.0]).reshape(3, *[1] * len(scaling.raw_shape))
        known = scaling.invert(deviations.expand(3, *scaling.raw_shape).to(scaling.centre.device))
        usual = Usual(*known.cpu().double().numpy())
        return [describe_signal(column, signal, *part, usual) for part in parts]

    def describe_tokens(
        self,
        name: str,
        place: int,
        rows: Places,
        raw: RawBatch,
        expected: Batch,
        maps: tuple[Tensor, ...],
    ) -> list[Words]:
        """Describe the tokens at this place of the layout, made from the column `name`."""
        token_input, vocabulary = self.layout.tokens[place], self.vocabularies.get(name, ())
        observed = raw.tokens[place][rows].long()
        wanted = expected.tokens[place][rows].cpu()
        shares = (observed != wanted).double()
        if maps:
            shares = maps[len(self.layout.signals) + place][rows].cpu().double()
        column = self.columns[name]
        parts = zip(shares.numpy(), observed.numpy(), wanted.numpy(), strict=True)
        return [describe_tokens(column, token_input, vocabulary, *part) for part in parts]
