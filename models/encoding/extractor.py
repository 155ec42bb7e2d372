"""The extractor reads columns: it decodes, looks up and checks cells, with Arrow and numpy.

It knows neither torch nor the detector. A row has the same output in any batch.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.columns import Categorical, SignalColumn
from models.decoding.decoder import Decoder
from models.decoding.scalars import FLOAT32_MAX, Bools, Cells, Problem, Texts
from models.encoding.layout import SPECIAL, find_pixels, make_layout, sort_by_source
from models.encoding.raw_batch import RawBatch, Unseen
from models.encoding.scale import SCALING, NumberRange, Scale, VocabularyUse, read_scales
from models.encoding.signals import (
    SIGNAL_SCALING,
    LearnedInputs,
    ShapedCells,
    SignalScale,
    find_raw_shape,
    shape_cells,
)
from models.refusal import Refusal
from models.schema import Source, check_types, fill_untyped

OTHER_CODE, NULL_CODE = 0, 1


class Extractor:
    """The fitted mapping of columns to a `RawBatch`, and the scales of its numbers.

    `layout.numeric` holds the raw inputs in the order of the columns, then the null indicators.
    `layout.categories` holds the columns with a vocabulary; `layout.signals` and `layout.tokens`
    hold the learned inputs.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        vocabularies: dict[str, tuple[str, ...]],
        ranges: dict[str, NumberRange],
        scales: tuple[Scale, ...],
        learned: dict[str, LearnedInputs],
        signal_scales: tuple[SignalScale, ...],
        uses: dict[str, VocabularyUse],
        bins: dict[str, tuple[int, ...]],
    ) -> None:
        self.sources = sources
        self.columns = tuple(source.column for source in sources if source.feature)
        self.required = tuple(source.column.name for source in sources)
        self.vocabularies = vocabularies
        self.ranges = ranges
        self.uses = uses  # of each vocabulary
        self.bins = bins  # rows of training by answer, hour or weekday (see `bins`)
        self.scales = scales  # of each raw input
        # JSON with sorted keys has lost the order of the columns.
        self.learned = sort_by_source(sources, learned)
        self.signal_scales = signal_scales  # one per entry of `layout.signals`
        self.raw, self.layout = make_layout(sources, vocabularies, self.learned)
        if len(scales) != len(self.raw):
            raise Refusal(
                f"expected scales for {len(self.raw)} inputs, found {len(scales)}; "
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
            for each, (pixels, _) in zip(self.signal_scales, self._pixels, strict=True)
        )
        encoded = sum(4 * signal.width for signal in self.layout.signals)
        tokens = sum(12 * tokens.length for tokens in self.layout.tokens)
        return 4 * numbers + 8 * len(self.layout.categories) + raw + encoded + tokens

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
            np.empty((0, len(self.raw)), np.float32),
            np.empty((0, len(self.layout.categories)), np.int64),
            (),
            tuple(
                np.empty((0, each.raw_width), np.uint8 if pixels else np.float32)
                for each, (pixels, _) in zip(self.signal_scales, self._pixels, strict=True)
            ),
            tuple(np.empty((0, t.length), np.int32) for t in self.layout.tokens),
        )

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
    """Fills the arrays of a raw batch, one column after the other."""

    def __init__(self, extractor: Extractor, rows: int) -> None:
        self.extractor, self.rows = extractor, rows
        # Each column is contiguous, because it is filled and scaled by columns (see
        # `Inputs.columns`). Writing with strides was 14% to 40% slower.
        self.values = np.empty((len(extractor.raw), rows), np.float32)
        self.codes = np.empty((len(extractor.layout.categories), rows), np.int64)
        self.signals: list[npt.NDArray[Any]] = []
        self.tokens: list[npt.NDArray[np.int32]] = []
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
            self.values[self.number] = self.extractor.subtract_offset(source.column.name, column)
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
                kept.append(wide)

    def finish(self, problems: tuple[Problem, ...]) -> RawBatch:
        return RawBatch(
            self.values.T,
            self.codes.T,
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


def open_extractor(document: dict[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Extractor:
    """The extractor of an encoder's `to_document()` and its arrays. Raises Refusal if the two
    differ."""
    parts, groups = read_document(document, arrays)
    scaling, *signals = groups
    found = [one.signal for one in parts["learned"].values() if one.signal]
    pairs = zip(found, signals, strict=True)
    scales = tuple(SignalScale(find_raw_shape(one), **own) for one, own in pairs)
    return Extractor(scales=read_scales(scaling), signal_scales=scales, **parts)


def read_document(
    document: dict[str, Any], arrays: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The arguments of an `Extractor` that a document holds, and the arrays of the scaling and of
    each signal by their names. Raises Refusal for other arrays than the document needs."""
    sources = tuple(Source.from_document(source) for source in document["sources"])
    found = {name: LearnedInputs.from_document(one) for name, one in document["learned"].items()}
    learned = sort_by_source(sources, found)
    count = sum(one.signal is not None for one in learned.values())
    names = ["scaling", *(f"signals.{i}" for i in range(count))]
    wanted = {f"scaling.{name}" for name in SCALING}
    wanted |= {f"{part}.{name}" for part in names[1:] for name in SIGNAL_SCALING}
    if set(arrays) != wanted:
        raise Refusal(
            f"expected the encoder's tensors {', '.join(sorted(wanted))}; "
            f"found {', '.join(sorted(arrays)) or 'none'}; "
            "open the bundle with the version that wrote it, or train again"
        )
    parts = {
        "sources": sources,
        "vocabularies": {n: tuple(texts) for n, texts in document["vocabularies"].items()},
        "ranges": {name: NumberRange(**known) for name, known in document["ranges"].items()},
        "learned": learned,
        "uses": {name: VocabularyUse(**use) for name, use in document["uses"].items()},
        "bins": {name: tuple(counts) for name, counts in document["bins"].items()},
    }
    groups = [
        {n.removeprefix(f"{part}."): a for n, a in arrays.items() if n.startswith(f"{part}.")}
        for part in names
    ]
    return parts, groups
