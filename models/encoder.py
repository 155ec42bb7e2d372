"""Columns to tensors: fitted on a stream, saved with the detector, one path to train and score.

`extract` is Arrow and numpy on the CPU (look-up, parsing, checks); `forward` is tensor operations
on any device (logarithm, scaling, clipping, null indicators). Both are elementwise: a row gives
the same output in any batch.
"""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from models.cells import FLOAT32_MAX, Bools, Cells, Problem, Texts, raw_inputs
from models.columns import Categorical, Image, SignalColumn, Video
from models.decoder import Decoder
from models.detector import Batch, CategoryInput, Contributions, Layout, NumericInput
from models.extracted import Extracted
from models.reasons import REASONS_TYPE, Explainer
from models.refusal import Refusal
from models.scaling import NumberRange, Scaling
from models.signals import Fixed, Learned, SignalScaling, fix
from models.sources import Source, compare

__all__ = ["REASONS_TYPE", "Encoder"]

SPECIAL = 2  # codes before the vocabulary: 0 is "other", 1 is null
NULL_CODE = 1
PIXELS = (Image, Video)  # whose raw form is uint8


def embedding_width(size: int) -> int:
    """fast.ai's rule of thumb, 1.6 size^0.56 (Howard & Gugger 2020), at most 16: vocabularies of
    logs are small, and a wider table outweighs the numbers beside it."""
    return min(16, round(1.6 * math.pow(size, 0.56)))


class Encoder(nn.Module):
    """The fitted mapping of columns to `Batch`. Made by `EncoderFit.finish` or `from_document`.

    `layout.numeric` holds the raw inputs in the order of the columns, then the null indicators;
    `layout.categories` the columns with a vocabulary, `layout.signals` and `layout.tokens` what
    `learned` says of a column.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        vocabularies: dict[str, tuple[str, ...]],
        ranges: dict[str, NumberRange],
        scaling: Scaling,
        learned: dict[str, Learned] | None = None,
        signals: list[SignalScaling] | None = None,
    ) -> None:
        super().__init__()
        self.sources = sources
        self.columns = tuple(source.column for source in sources if source.feature)
        self.required = tuple(source.column.name for source in sources)
        self.vocabularies = vocabularies
        self.ranges = ranges
        self.scaling = scaling
        # In the order of the columns: JSON that sorts its keys has lost it.
        self.learned = _in_order(sources, learned or {})
        self.signals = nn.ModuleList(signals or [])  # one an entry of `layout.signals`
        self.raw, self.layout = layout_of(sources, vocabularies, self.learned)
        if len(scaling.centre) != len(self.raw):
            raise Refusal(
                f"expected scales for {len(self.raw)} inputs, found {len(scaling.centre)}; "
                "the encoder's tensors belong to another document"
            )
        self._pixels = _pixels_of(sources, self.raw, self.learned)
        self._lookups = {name: pa.array(texts, pa.string()) for name, texts in vocabularies.items()}
        self._checked: pa.Schema | None = None

    @property
    def bytes_per_row(self) -> int:
        """Memory of one row, extracted and encoded: 1 a pixel and 4 a number, 8 a code, 4 and 8 a
        token."""
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
        """One an entry of `layout.signals`."""
        return [each for each in self.signals if isinstance(each, SignalScaling)]

    def check_schema(self, schema: pa.Schema) -> None:
        """Raises `SchemaMismatch` where a column is missing, doubled, or of another type."""
        compare(self.sources, schema)

    def extract(self, batch: pa.RecordBatch) -> Extracted:
        """Decode and look up the columns of a batch, on the CPU.

        Raises `SchemaMismatch` as `check_schema` does; cells that cannot be used are problems.
        """
        if self._checked is None or not batch.schema.equals(self._checked):
            self.check_schema(batch.schema)
            self._checked = batch.schema
        rows = batch.num_rows
        # Each column in one piece of memory: so it is filled and, on a CPU, scaled (see
        # `Inputs.columns`); writing with strides was 14% to 40% slower.
        values = np.empty((len(self.raw), rows), np.float32)
        codes = np.empty((len(self.layout.categories), rows), np.int64)
        signals: list[Tensor] = []
        tokens: list[Tensor] = []
        problems: list[Problem] = []
        decoder = Decoder(batch)
        number = category = 0
        for source in self.sources:
            name = source.column.name
            learned = self.learned.get(name, Learned())
            cells = decoder.decode(source, learned.signal.shape[0] if learned.signal else 3)
            fixed = self._fixed(source, learned, cells)
            broken = [*_problems_of(source, cells), *fixed.broken]
            problems.extend(
                Problem(int(row), name, rule) for at, rule in broken for row in np.flatnonzero(at)
            )
            if not source.feature:
                continue
            for wide, kept in ((fixed.signal, signals), (fixed.tokens, tokens)):
                if wide is not None:
                    for at, _ in broken:
                        wide[at] = 0
                    kept.append(torch.from_numpy(wide))
            first = number
            for column in _inputs(source, cells, rows):
                values[number] = self._shifted(name, column)
                number += 1
            if cells.null is not None and not isinstance(source.column, SignalColumn):
                values[first:number, cells.null] = np.nan
            coded = name in self._lookups and not learned.tokens
            if coded and cells.text is not None:
                codes[category] = self._look_up(name, cells.text)
                category += 1
            for at, _ in broken:
                values[first:number, at] = 0
                if coded:
                    codes[category - 1, at] = 0
        order = {name: i for i, name in enumerate(self.required)}
        problems.sort(key=lambda problem: (problem.row, order[problem.column]))
        return Extracted(
            torch.from_numpy(values).T,
            torch.from_numpy(codes).T,
            tuple(problems),
            tuple(signals),
            tuple(tokens),
        )

    def nothing(self) -> Extracted:
        """No rows, in the shape of those that `extract` gives."""
        return Extracted(
            torch.empty(0, len(self.raw)),
            torch.empty(0, len(self.layout.categories), dtype=torch.int64),
            (),
            tuple(
                torch.empty(0, each.raw_width, dtype=torch.uint8 if pixels else torch.float32)
                for each, (pixels, _) in zip(self.scalings, self._pixels, strict=True)
            ),
            tuple(torch.empty(0, t.length, dtype=torch.int32) for t in self.layout.tokens),
        )

    def forward(self, extracted: Extracted) -> Batch:
        """Scale what `extract` gave, on the device where it lies."""
        values = extracted.values
        signals = tuple(
            scaling(raw, None if null is None else values[:, null])
            for scaling, raw, (_, null) in zip(
                self.signals, extracted.signals, self._pixels, strict=True
            )
        )
        tokens = tuple(each.long() for each in extracted.tokens)
        return Batch(self.scaling(values), extracted.codes, None, signals, tokens)

    def reasons(
        self,
        extracted: Extracted,
        contributions: Contributions,
        top: int,
        sensitive: frozenset[str] = frozenset(),
    ) -> pa.Array:
        """The `top` features of each row by their share, with observed and expected values.

        Returns an array of `REASONS_TYPE`. The sine and cosine of a time are one feature, and its
        share is their sum. Values of sensitive columns, and those expected, show "[sensitive]".
        """
        explainer = Explainer(
            self.sources,
            self.layout,
            self.vocabularies,
            self.ranges,
            self.scaling,
            self.scalings,
        )
        return explainer.explain(extracted, contributions, top, sensitive)

    def to_document(self) -> dict[str, Any]:
        """All but the tensors of `state_dict()`, as JSON."""
        return {
            "sources": [source.to_document() for source in self.sources],
            "vocabularies": {name: list(texts) for name, texts in self.vocabularies.items()},
            "ranges": {name: asdict(seen) for name, seen in self.ranges.items()},
            "learned": {name: found.to_document() for name, found in self.learned.items()},
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> "Encoder":
        """The encoder of `to_document()` and `state_dict()`. Raises `Refusal` where they differ."""
        sources = tuple(Source.from_document(source) for source in document["sources"])
        found = {name: Learned.from_document(one) for name, one in document["learned"].items()}
        learned = _in_order(sources, found)
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
            {name: NumberRange(**seen) for name, seen in document["ranges"].items()},
            Scaling(scaling),
            learned,
            [SignalScaling(one, **own) for one, own in zip(given, signals, strict=True)],
        )

    def _fixed(self, source: Source, learned: Learned, cells: Cells) -> Fixed:
        codes = None
        if learned.tokens and cells.text is not None:
            codes = self._look_up(source.column.name, cells.text)
        return fix(source, learned, cells, codes)

    def _shifted(self, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen = self.ranges.get(name)
        if seen is None or not seen.offset:
            return values
        return np.clip(values.astype(np.float64) - seen.offset, -FLOAT32_MAX, FLOAT32_MAX)

    def _look_up(self, name: str, text: Texts) -> np.ndarray[Any, Any]:
        vocabulary = self._lookups[name].cast(text.texts.type)
        positions = pc.index_in(text.texts, vocabulary, skip_nulls=True).fill_null(-SPECIAL)
        codes = np.append(np.asarray(positions).astype(np.int64) + SPECIAL, NULL_CODE)
        return codes[text.indices]  # index -1, the last entry, is null


def _in_order(sources: tuple[Source, ...], learned: dict[str, Learned]) -> dict[str, Learned]:
    names = [source.column.name for source in sources]
    return {name: learned[name] for name in names if name in learned}


def layout_of(
    sources: tuple[Source, ...],
    vocabularies: dict[str, tuple[str, ...]],
    learned: dict[str, Learned],
) -> tuple[tuple[NumericInput, ...], Layout]:
    """The raw inputs, and what the encoder makes of them."""
    raw: list[NumericInput] = []
    nulls: list[NumericInput] = []
    categories: list[CategoryInput] = []
    for source in sources:
        column = source.column
        if not source.feature:
            continue
        if isinstance(column, SignalColumn):
            if source.nullable:
                raw.append(NumericInput(f"{column.name} is null", "binary"))
            continue
        inputs = raw_inputs(column, source.signature)
        raw.extend(inputs)
        if inputs and source.nullable:
            nulls.append(NumericInput(f"{column.name} is null", "binary"))
        if column.name in vocabularies:
            size = len(vocabularies[column.name]) + SPECIAL
            embedded = isinstance(column, Categorical) and column.encoding == "embedding"
            width = embedding_width(size) if embedded else 0
            categories.append(CategoryInput(column.name, size, width))
    signals = tuple(found.signal for found in learned.values() if found.signal)
    tokens = tuple(found.tokens for found in learned.values() if found.tokens)
    return tuple(raw), Layout((*raw, *nulls), tuple(categories), signals, tokens)


def _inputs(source: Source, cells: Cells, rows: int) -> tuple[np.ndarray[Any, Any], ...]:
    """The raw inputs [rows]; of signals only whether there is none, where training had that."""
    if not isinstance(source.column, SignalColumn):
        return cells.inputs
    if not source.nullable:
        return ()
    return (np.zeros(rows, bool) if cells.null is None else cells.null,)


def _pixels_of(
    sources: tuple[Source, ...], raw: tuple[NumericInput, ...], learned: dict[str, Learned]
) -> list[tuple[bool, int | None]]:
    """Of each signal: is it pixels, which have no NaN; and which raw input says that it is null."""
    places = {given.name: i for i, given in enumerate(raw)}
    kinds = {source.column.name: isinstance(source.column, PIXELS) for source in sources}
    return [
        (kinds[name], places.get(f"{name} is null") if kinds[name] else None)
        for name, found in learned.items()
        if found.signal
    ]


def _problems_of(source: Source, cells: Cells) -> list[tuple[Bools, str]]:
    """The broken rules, and nulls where training had none.

    A null that was never seen would be imputed, and so pass as normal; it is set aside instead. A
    categorical column has a code for it.
    """
    broken = list(cells.problems)
    if (
        cells.null is not None
        and not source.nullable
        and not isinstance(source.column, Categorical)
    ):
        broken.append((cells.null, "unexpected_null"))
    return broken
