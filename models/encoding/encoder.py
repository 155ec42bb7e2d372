"""The encoder turns columns into tensors, in the same way for training and scoring.

`extract` looks up, parses and checks cells on the CPU, with Arrow and numpy. `forward` applies
logarithms, scales, clips and adds null indicators, with tensor operations on any device. A row has
the same output in any batch.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from models.batch import Batch
from models.columns import Categorical, SignalColumn
from models.decoding.decoder import Decoder
from models.decoding.scalars import FLOAT32_MAX, Bools, Cells, Problem, Texts
from models.encoding.layout import SPECIAL, find_pixels, make_layout, sort_by_source
from models.encoding.raw_batch import RawBatch, Unseen
from models.encoding.scaling import NumberRange, Scaling, VocabularyUse
from models.encoding.signals import LearnedInputs, ShapedCells, SignalScaling, shape_cells
from models.refusal import Refusal
from models.schema import Source, check_types, fill_untyped

OTHER_CODE, NULL_CODE = 0, 1


class Encoder(nn.Module):
    """The fitted mapping of columns to a `Batch`. Made by `EncoderFit.finish` or `from_document`.

    `layout.numeric` holds the raw inputs in the order of the columns, then the null indicators.
    `layout.categories` holds the columns with a vocabulary; `layout.signals` and `layout.tokens`
    hold the learned inputs.
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
        super().__init__()
        self.sources = sources
        self.columns = tuple(source.column for source in sources if source.feature)
        self.required = tuple(source.column.name for source in sources)
        self.vocabularies = vocabularies
        self.ranges = ranges
        self.uses = uses or {}  # of each vocabulary
        self.bins = bins or {}  # rows of training by answer, hour or weekday (see `bins`)
        self.scaling = scaling
        # JSON with sorted keys has lost the order of the columns.
        self.learned = sort_by_source(sources, learned or {})
        self.signals = nn.ModuleList(signals or [])  # one per entry of `layout.signals`
        self.raw, self.layout = make_layout(sources, vocabularies, self.learned)
        if len(scaling.centre) != len(self.raw):
            raise Refusal(
                f"expected scales for {len(self.raw)} inputs, found {len(scaling.centre)}; "
                "the encoder's tensors belong to another document"
            )
        self._pixels = find_pixels(sources, self.raw, self.learned)
        self._lookups = {name: pa.array(texts, pa.string()) for name, texts in vocabularies.items()}
        self._checked: pa.Schema | None = None

    @property
    def bytes_per_row(self) -> int:
        """The memory of one row, raw and encoded.

        A raw pixel takes 1 byte, a number 4, a code 8, a token 4 raw and 8 encoded.
        """
        numbers = len(self.raw) + len(self.layout.numeric)
        raw = sum(
            each.raw_width * (1 if pixels else 4)
            for each, (pixels, _) in zip(self.scalings, self._pixels, strict=True)
        )
        encoded = sum(4 * signal.width for signal in self.layout.signals)
        tokens = sum(12 * tokens.length for tokens in self.layout.tokens)
        return 4 * numbers + 8 * len(self.layout.categories) + raw + encoded + tokens

    @property
    def scalings(self) -> list[SignalScaling]:
        """The scalings of the signals, one per entry of `layout.signals`."""
        return [each for each in self.signals if isinstance(each, SignalScaling)]

    def check_schema(self, schema: pa.Schema) -> None:
        """Raise SchemaMismatch if a column is missing, is there twice or has another type."""
        check_types(self.sources, schema)

    def extract(self, batch: pa.RecordBatch) -> RawBatch:
        """Decode and look up the columns of a batch, on the CPU.

        Cells that cannot be used become problems. Raises SchemaMismatch like `check_schema`.
        """
        if self._checked is None or not batch.schema.equals(self._checked):
            self.check_schema(batch.schema)
            self._checked = batch.schema
        batch = fill_untyped(batch, self.sources)
        filling = _Filling(self, batch.num_rows)
        problems: list[Problem] = []
        decoder = Decoder(batch)
        for source in self.sources:
            name = source.column.name
            learned = self.learned.get(name, LearnedInputs())
            cells = decoder.decode(source, learned.signal.shape[0] if learned.signal else 3)
            codes = None
            if name in self._lookups and cells.text is not None:
                codes = self._look_up(name, cells.text)
            shaped = shape_cells(source, learned, cells, codes)
            broken = [*_find_problems(source, cells), *shaped.broken]
            problems.extend(
                Problem(int(row), name, rule) for at, rule in broken for row in np.flatnonzero(at)
            )
            if source.feature:
                filling.add(source, cells, codes, shaped, [at for at, _ in broken])
        order = {name: i for i, name in enumerate(self.required)}
        problems.sort(key=lambda problem: (problem.row, order[problem.column]))
        return filling.finish(tuple(problems))

    def make_empty(self) -> RawBatch:
        """A raw batch without rows."""
        return RawBatch(
            torch.empty(0, len(self.raw)),
            torch.empty(0, len(self.layout.categories), dtype=torch.int64),
            (),
            tuple(
                torch.empty(0, each.raw_width, dtype=torch.uint8 if pixels else torch.float32)
                for each, (pixels, _) in zip(self.scalings, self._pixels, strict=True)
            ),
            tuple(torch.empty(0, t.length, dtype=torch.int32) for t in self.layout.tokens),
        )

    def forward(self, raw: RawBatch) -> Batch:
        """Scale a raw batch, on the device where it is."""
        signals = tuple(
            scaling(signal, None if null is None else raw.values[:, null])
            for scaling, signal, (_, null) in zip(
                self.signals, raw.signals, self._pixels, strict=True
            )
        )
        tokens = tuple(each.long() for each in raw.tokens)
        return Batch(self.scaling(raw.values), raw.codes, None, signals, tokens)

    def to_document(self) -> dict[str, Any]:
        """The encoder as a JSON object, without the tensors of `state_dict()`."""
        return {
            "sources": [source.to_document() for source in self.sources],
            "vocabularies": {name: list(texts) for name, texts in self.vocabularies.items()},
            "ranges": {name: asdict(known) for name, known in self.ranges.items()},
            "uses": {name: asdict(use) for name, use in self.uses.items()},
            "bins": {name: list(counts) for name, counts in self.bins.items()},
            "learned": {name: part.to_document() for name, part in self.learned.items()},
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> "Encoder":
        """The encoder of `to_document()` and `state_dict()`. Raises Refusal if the two differ."""
        sources = tuple(Source.from_document(source) for source in document["sources"])
        found = {
            name: LearnedInputs.from_document(one) for name, one in document["learned"].items()
        }
        learned = sort_by_source(sources, found)
        given = [one.signal for one in learned.values() if one.signal]
        parts = ["scaling", *(f"signals.{i}" for i in range(len(given)))]
        wanted = {f"scaling.{name}" for name in Scaling.__annotations__}
        wanted |= {f"{part}.{name}" for part in parts[1:] for name in SignalScaling.__annotations__}
        if set(tensors) != wanted:
            raise Refusal(
                f"expected the encoder's tensors {', '.join(sorted(wanted))}; "
                f"found {', '.join(sorted(tensors)) or 'none'}; "
                "open the bundle with the version that wrote it, or train again"
            )
        scaling, *signals = [
            {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
            for part in parts
        ]
        return cls(
            sources,
            {name: tuple(texts) for name, texts in document["vocabularies"].items()},
            {name: NumberRange(**known) for name, known in document["ranges"].items()},
            Scaling(scaling),
            learned,
            [SignalScaling(one, **own) for one, own in zip(given, signals, strict=True)],
            {name: VocabularyUse(**use) for name, use in document["uses"].items()},
            {name: tuple(counts) for name, counts in document["bins"].items()},
        )

    def subtract_offset(self, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Subtract the offset of a column in float64: float32 could not hold the numbers."""
        known = self.ranges.get(name)
        if known is None or not known.offset:
            return values
        return np.clip(values.astype(np.float64) - known.offset, -FLOAT32_MAX, FLOAT32_MAX)

    def _look_up(self, name: str, text: Texts) -> np.ndarray[Any, Any]:
        vocabulary = self._lookups[name].cast(text.texts.type)
        positions = pc.index_in(text.texts, vocabulary, skip_nulls=True).fill_null(-SPECIAL)
        codes = np.append(np.asarray(positions).astype(np.int64) + SPECIAL, NULL_CODE)
        return codes[text.indices]  # index -1, the last entry, is null


class _Filling:
    """Fills the tensors of a raw batch, one column after the other."""

    def __init__(self, encoder: Encoder, rows: int) -> None:
        self.encoder, self.rows = encoder, rows
        # Each column is contiguous, because it is filled and scaled by columns (see
        # `Inputs.columns`). Writing with strides was 14% to 40% slower.
        self.values = np.empty((len(encoder.raw), rows), np.float32)
        self.codes = np.empty((len(encoder.layout.categories), rows), np.int64)
        self.signals: list[Tensor] = []
        self.tokens: list[Tensor] = []
        self.unseen: list[Unseen] = []
        self.number = self.category = 0

    def add(
        self,
        source: Source,
        cells: Cells,
        codes: np.ndarray[Any, Any] | None,
        shaped: ShapedCells,
        broken: list[Bools],
    ) -> None:
        """Add the cells of a feature, as zeros if they break a rule."""
        first = self.number
        signal = isinstance(source.column, SignalColumn)
        for column in self._inputs(source, cells):
            self.values[self.number] = self.encoder.subtract_offset(source.column.name, column)
            self.number += 1
        if cells.null is not None and not signal:
            self.values[first : self.number, cells.null] = np.nan
        if codes is not None and not signal:
            self.codes[self.category] = codes
            rows = np.flatnonzero(codes == OTHER_CODE)
            if len(rows) and cells.text is not None:
                texts = cells.text.texts.take(pa.array(cells.text.indices[rows]))
                self.unseen.append(Unseen(self.category, rows, texts))
            self.category += 1
        for at in broken:
            self.values[first : self.number, at] = 0
            if codes is not None and not signal:
                self.codes[self.category - 1, at] = 0
        for wide, kept in ((shaped.signal, self.signals), (shaped.tokens, self.tokens)):
            if wide is not None:
                for at in broken:
                    wide[at] = 0
                kept.append(torch.from_numpy(wide))

    def finish(self, problems: tuple[Problem, ...]) -> RawBatch:
        return RawBatch(
            torch.from_numpy(self.values).T,
            torch.from_numpy(self.codes).T,
            problems,
            tuple(self.signals),
            tuple(self.tokens),
            tuple(self.unseen),
        )

    def _inputs(self, source: Source, cells: Cells) -> tuple[np.ndarray[Any, Any], ...]:
        """The raw inputs, [rows] each. Those of a signal say only whether it is null."""
        if not isinstance(source.column, SignalColumn):
            return cells.inputs
        if not source.nullable:
            return ()
        return (np.zeros(self.rows, bool) if cells.null is None else cells.null,)


def _find_problems(source: Source, cells: Cells) -> list[tuple[Bools, str]]:
    """The rows that break a rule. One rule forbids nulls in a column that had none in training.

    Such a null would be imputed and look normal, so it is a problem instead. A categorical column
    has a code for null.
    """
    broken = list(cells.problems)
    if (
        cells.null is not None
        and not source.nullable
        and not isinstance(source.column, Categorical)
    ):
        broken.append((cells.null, "unexpected_null"))
    return broken
