"""Fitting an encoder in one pass over the splits, with statistics that merge."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cluster.lake.input.reading import read_rows
from cluster.lake.input.splits import Split
from cluster.lake.storage.opening import open_store
from cluster.runtime.resources import ActorPlan
from cluster.splits.admission import CHUNKS
from cluster.splits.engine import DaySplit, Engine, OnSplit
from cluster.splits.worker import SplitWorker
from models.columns import FeatureColumn
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.refusal import Refusal


@dataclass(frozen=True)
class RowSelection:
    """Which rows of the input a training sees."""

    input_uri: str
    columns: tuple[FeatureColumn, ...]
    schema: pa.Schema
    filter: str | None


@dataclass(frozen=True)
class _FitPart:
    """Statistics of one split."""

    split: str  # its id
    rows: int
    fit: EncoderFit

    def to_document(self) -> dict[str, Any]:
        fit = base64.b64encode(self.fit.to_bytes()).decode()
        return {"split": self.split, "rows": self.rows, "fit": fit}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "_FitPart":
        fit = EncoderFit.from_bytes(base64.b64decode(document["fit"]))
        return cls(document["split"], document["rows"], fit)


class _FitWorker(SplitWorker[Split, _FitPart]):
    work_type, answer_type = Split, _FitPart

    def __init__(self, plan: ActorPlan, rows: RowSelection) -> None:
        super().__init__(plan)
        self.rows = rows

    def answer(self, day: str, split: Split) -> _FitPart:
        fit = EncoderFit(self.rows.columns, self.rows.schema)
        required = tuple(source.column.name for source in fit.sources)
        store = open_store(self.rows.input_uri)
        for batch, _ in read_rows(
            store, split, required, CHUNKS * fit.chunk_rows, self.rows.filter, self.rows.schema
        ):
            fit.update(batch)
        return _FitPart(split.id, split.rows, fit)


def fit_encoder(
    engine: Engine,
    rows: RowSelection,
    splits: Sequence[DaySplit],
    plan: ActorPlan,
    on_split: OnSplit,
) -> tuple[Encoder, int]:
    """Fit an encoder to the rows of the splits; the encoder and the number of rows.

    Statistics are merged in the order of the splits, so that the encoder is the same each time.
    Raises Refusal if there are no rows.
    """
    parts: dict[str, EncoderFit] = {}
    for _, part in engine.stream(splits, _FitWorker, (rows,), plan):
        parts[part.split] = part.fit
        on_split(part.rows)
    whole = EncoderFit(rows.columns, rows.schema)
    for _, split in splits:
        whole.merge(parts[split.id])
    if whole.rows == 0:
        kept = f" that pass the filter {rows.filter!r}" if rows.filter else ""
        raise Refusal(f"there are no rows to train on{kept} in {rows.input_uri}")
    return whole.finish(), whole.rows
