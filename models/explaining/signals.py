"""Describes the place in a signal or in tokens that added most to the score."""

import numpy as np
import numpy.typing as npt

from models.columns import FeatureColumn, Text
from models.decoding.texts import tokens_to_text
from models.encoding.raw_batch import RawBatch
from models.encoding.signals import SignalScale
from models.evidence import Evidence
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
        scales: tuple[SignalScale, ...],
    ) -> None:
        self.layout = layout
        self.columns = columns
        self.vocabularies = vocabularies
        self.scales = scales

    def describe_signals(
        self, name: str, place: int, rows: Places, raw: RawBatch, evidence: Evidence
    ) -> list[Words]:
        """Describe the signal at this place of the layout, made from the column `name`."""
        signal, scale = self.layout.signals[place], self.scales[place]
        values, wanted = raw.signals[place][rows], evidence.signals[place][rows]
        # Without maps, the places are those that differ most from the expected ones.
        shares = np.square(evidence.scored[place][rows] - wanted)
        if evidence.maps:
            shares = evidence.maps[place][rows]
        column = self.columns[name]
        texts: list[str | None] = [None] * len(rows)
        if isinstance(column, Text):
            names = [tokens.name for tokens in self.layout.tokens]
            texts = [tokens_to_text(row) for row in raw.tokens[names.index(name)][rows]]
        parts = zip(
            shares.astype(np.float64),
            values.reshape(len(rows), *scale.raw_shape).astype(np.float64),
            scale.invert(wanted).astype(np.float64),
            texts,
            strict=True,
        )
        deviations = np.array([0.0, -2.0, 2.0]).reshape(3, *[1] * len(scale.raw_shape))
        usual = Usual(*scale.invert(np.broadcast_to(deviations, (3, *scale.raw_shape))))
        return [describe_signal(column, signal, *part, usual) for part in parts]

    def describe_tokens(
        self, name: str, place: int, rows: Places, raw: RawBatch, evidence: Evidence
    ) -> list[Words]:
        """Describe the tokens at this place of the layout, made from the column `name`."""
        token_input, vocabulary = self.layout.tokens[place], self.vocabularies.get(name, ())
        observed, wanted = raw.tokens[place][rows], evidence.tokens[place][rows]
        shares: npt.NDArray[np.float64] = (observed != wanted).astype(np.float64)
        if evidence.maps:
            shares = evidence.maps[len(self.layout.signals) + place][rows].astype(np.float64)
        column = self.columns[name]
        parts = zip(shares, observed, wanted, strict=True)
        return [describe_tokens(column, token_input, vocabulary, *part) for part in parts]
