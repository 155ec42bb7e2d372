"""The encoder turns columns into tensors, in the same way for training and scoring."""

from typing import Any

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.encoding.extractor import Extractor, read_document
from models.encoding.raw_batch import Array, RawBatch
from models.encoding.scale import NumberRange, VocabularyUse
from models.encoding.scaling import Scaling
from models.encoding.signal_scaling import SignalScaling
from models.encoding.signals import LearnedInputs
from models.schema import Source


class Encoder(nn.Module, Extractor):
    """An extractor that also scales: it applies logarithms, scales, clips and adds null indicators,
    with tensor operations on any device. Made by `EncoderFit.finish` or `from_document`.

    A row has the same output in any batch.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        vocabularies: dict[str, tuple[str, ...]],
        ranges: dict[str, NumberRange],
        scaling: Scaling,
        learned: dict[str, LearnedInputs] | None = None,
        signals: list[SignalScaling] | None = None,
        uses: dict[str, VocabularyUse] | None = None,
        bins: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        Extractor.__init__(
            self,
            sources,
            vocabularies,
            ranges,
            scaling.to_scales(),
            learned or {},
            tuple(each.to_scale() for each in signals or []),
            uses or {},
            bins or {},
        )
        self.scaling = scaling
        self.signals = nn.ModuleList(signals or [])  # one per entry of `layout.signals`

    def forward(self, raw: RawBatch) -> Batch:
        """Scale a raw batch, on the device of the encoder."""
        device = self.scaling.centre.device

        def move(array: Array) -> Tensor:
            return torch.from_numpy(array).to(device)

        signals, tokens = map(move, raw.signals), map(move, raw.tokens)
        return self.scale(move(raw.values), move(raw.codes), tuple(signals), tuple(tokens))

    def scale(
        self, values: Tensor, codes: Tensor, signals: tuple[Tensor, ...], tokens: tuple[Tensor, ...]
    ) -> Batch:
        """Scale the tensors of a raw batch."""
        scaled = tuple(
            scaling(signal, None if null is None else values[:, null])
            for scaling, signal, (_, null) in zip(self.signals, signals, self._pixels, strict=True)
        )
        return Batch(self.scaling(values), codes, None, scaled, tuple(t.long() for t in tokens))

    @classmethod
    def from_document(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> "Encoder":
        """The encoder of `to_document()` and `state_dict()`. Raises Refusal if the two differ."""
        parts, (scaling, *signals) = read_document(document, tensors)
        given = [one.signal for one in parts["learned"].values() if one.signal]
        made = [SignalScaling(one, **own) for one, own in zip(given, signals, strict=True)]
        return cls(scaling=Scaling(scaling), signals=made, **parts)
