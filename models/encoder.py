"""Columns to tensors: fitted on a stream, saved with the detector, one path to train and score.

`extract` is Arrow and numpy on the CPU (look-up, parsing, checks); `forward` is tensor operations
on any device (logarithm, scaling, clipping, null indicators). Both are elementwise: a row gives
the same output in any batch.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from models.cells import FLOAT32_MAX, Bools, Cells, Decoder, Problem, Text, raw_inputs
from models.columns import Categorical
from models.detector import Batch, CategoryInput, Contributions, Layout, NumericInput
from models.reasons import REASONS_TYPE, Explainer
from models.refusal import Refusal
from models.scaling import NumberRange, Scaling
from models.sources import Source, compare

__all__ = ["REASONS_TYPE", "Encoder", "Extracted", "Problem"]

SPECIAL = 2  # codes before the vocabulary: 0 is "other", 1 is null
NULL_CODE = 1


class Extracted(NamedTuple):
    """A batch of rows before scaling. Rows with problems are still there, with zeros for them."""

    values: Tensor  # float32 [rows, raw inputs]; NaN is null
    codes: Tensor  # int64 [rows, categories]
    problems: tuple[Problem, ...]  # by row, then in the order of the columns


def joined(several: Sequence[Extracted]) -> Extracted:
    """The rows of all, in their order; without their problems."""
    if len(several) == 1:
        return several[0]
    values = torch.cat([one.values.T for one in several], 1).T  # as `extract` lays them out
    codes = torch.cat([one.codes.T for one in several], 1).T
    return Extracted(values, codes, ())


def embedding_width(size: int) -> int:
    """fast.ai's rule of thumb, 1.6 size^0.56 (Howard & Gugger 2020), at most 16: vocabularies of
    logs are small, and a wider table outweighs the numbers beside it."""
    return min(16, round(1.6 * math.pow(size, 0.56)))


class Encoder(nn.Module):
    """The fitted mapping of columns to `Batch`. Made by `EncoderFit.finish` or `from_document`.

    `layout.numeric` holds the raw inputs in the order of the columns, then the null indicators;
    `layout.categories` the columns with a vocabulary.
    """

    def __init__(
        self,
        sources: tuple[Source, ...],
        vocabularies: dict[str, tuple[str, ...]],
        ranges: dict[str, NumberRange],
        scaling: Scaling,
    ) -> None:
        super().__init__()
        self.sources = sources
        self.columns = tuple(source.column for source in sources if source.feature)
        self.required = tuple(source.column.name for source in sources)
        self.vocabularies = vocabularies
        self.ranges = ranges
        self.scaling = scaling
        self.raw, self.layout = layout_of(sources, vocabularies)
        if len(scaling.centre) != len(self.raw):
            raise Refusal(
                f"expected scales for {len(self.raw)} inputs, found {len(scaling.centre)}; "
                "the encoder's tensors belong to another document"
            )
        self._lookups = {name: pa.array(texts, pa.string()) for name, texts in vocabularies.items()}
        self._checked: pa.Schema | None = None

    @property
    def bytes_per_row(self) -> int:
        """Memory of one row, extracted and encoded: 4 a number, 8 a code."""
        numbers = len(self.raw) + len(self.layout.numeric)
        return 4 * numbers + 8 * len(self.layout.categories)

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
        problems: list[Problem] = []
        decoder = Decoder(batch)
        number = category = 0
        for source in self.sources:
            name = source.column.name
            cells = decoder.decode(source.column)
            broken = _problems_of(source, cells)
            problems.extend(
                Problem(int(row), name, rule) for at, rule in broken for row in np.flatnonzero(at)
            )
            if not source.feature:
                continue
            first = number
            for column in cells.inputs:
                values[number] = self._shifted(name, column)
                number += 1
            if cells.null is not None:
                values[first:number, cells.null] = np.nan
            if name in self._lookups and cells.text is not None:
                codes[category] = self._look_up(name, cells.text)
                category += 1
            for at, _ in broken:
                values[first:number, at] = 0
                if name in self._lookups:
                    codes[category - 1, at] = 0
        order = {name: i for i, name in enumerate(self.required)}
        problems.sort(key=lambda problem: (problem.row, order[problem.column]))
        return Extracted(torch.from_numpy(values).T, torch.from_numpy(codes).T, tuple(problems))

    def forward(self, values: Tensor, codes: Tensor) -> Batch:
        """Scale what `extract` gave, on the device where it lies."""
        return Batch(self.scaling(values), codes)

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
        )
        return explainer.explain(extracted.values, extracted.codes, contributions, top, sensitive)

    def to_document(self) -> dict[str, Any]:
        """All but the tensors of `state_dict()`, as JSON."""
        return {
            "sources": [source.to_document() for source in self.sources],
            "vocabularies": {name: list(texts) for name, texts in self.vocabularies.items()},
            "ranges": {name: asdict(seen) for name, seen in self.ranges.items()},
        }

    @classmethod
    def from_document(cls, document: dict[str, Any], tensors: dict[str, Tensor]) -> "Encoder":
        """The encoder of `to_document()` and `state_dict()`. Raises `Refusal` where they differ."""
        prefix = "scaling."
        wanted = {prefix + name for name in Scaling.__annotations__}
        if set(tensors) != wanted:
            raise Refusal(
                f"expected the encoder's tensors {', '.join(sorted(wanted))}; "
                f"found {', '.join(sorted(tensors)) or 'none'}; "
                "open the bundle with the version that wrote it, or train again"
            )
        return cls(
            tuple(Source.from_document(source) for source in document["sources"]),
            {name: tuple(texts) for name, texts in document["vocabularies"].items()},
            {name: NumberRange(**seen) for name, seen in document["ranges"].items()},
            Scaling({name.removeprefix(prefix): tensor for name, tensor in tensors.items()}),
        )

    def _shifted(self, name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        seen = self.ranges.get(name)
        if seen is None or not seen.offset:
            return values
        return np.clip(values.astype(np.float64) - seen.offset, -FLOAT32_MAX, FLOAT32_MAX)

    def _look_up(self, name: str, text: Text) -> np.ndarray[Any, Any]:
        vocabulary = self._lookups[name].cast(text.texts.type)
        positions = pc.index_in(text.texts, vocabulary, skip_nulls=True).fill_null(-SPECIAL)
        codes = np.append(np.asarray(positions).astype(np.int64) + SPECIAL, NULL_CODE)
        return codes[text.indices]  # index -1, the last entry, is null


def layout_of(
    sources: tuple[Source, ...], vocabularies: dict[str, tuple[str, ...]]
) -> tuple[tuple[NumericInput, ...], Layout]:
    """The raw inputs, and what the encoder makes of them."""
    raw: list[NumericInput] = []
    nulls: list[NumericInput] = []
    categories: list[CategoryInput] = []
    for source in sources:
        column = source.column
        if not source.feature:
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
    return tuple(raw), Layout((*raw, *nulls), tuple(categories))


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
