"""From splits to what a training needs: a fitted encoder, a dataset, a sample, a calibration."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data
import torch

from cluster import judge
from cluster.distinct import KeySample, hashes
from cluster.encoded_table import from_table, to_table
from cluster.intake import CHUNKS, Books, Intake, Lot
from cluster.lake import reading
from cluster.lake.splitting import Split
from cluster.lake.store import Store
from cluster.resources import ActorPlan
from cluster.stream import SplitWorker, descriptors, over, stream
from models.columns import FeatureColumn
from models.detector import Batch, Detector, joined
from models.encoder import Encoder
from models.encoder_fit import EncoderFit
from models.refusal import Refusal
from models.sketch import ScoreSketch
from models.threshold import Calibration

DaySplit = tuple[str, Split]
# Of an encoded sample: 80,000 images of 32 x 32 in colour, and 200,000 rows of any usual table.
_SAMPLE_BYTES = 1024**3

OnSplit = Callable[[int], None]  # called with the rows of each split that is done


@dataclass(frozen=True)
class Rows:
    """Which rows of the input a training sees."""

    input_uri: str
    columns: tuple[FeatureColumn, ...]
    schema: pa.Schema
    filter: str | None


class _FitWorker(SplitWorker):
    def __init__(self, plan: ActorPlan, rows: Rows) -> None:
        super().__init__(plan)
        self.rows = rows

    def answer(self, day: str, split: Split) -> dict[str, Any]:
        fit = EncoderFit(self.rows.columns, self.rows.schema)
        required = tuple(source.column.name for source in fit.sources)
        store = Store.open(self.rows.input_uri)
        for batch, _ in reading.read(
            store, split, required, CHUNKS * fit.chunk_rows, filter_text=self.rows.filter
        ):
            fit.update(batch)
        document = base64.b64encode(fit.to_bytes()).decode()
        return {"split": split.id, "rows": split.rows, "fit": document}


def fit_encoder(
    rows: Rows, splits: Sequence[DaySplit], plan: ActorPlan, on_split: OnSplit
) -> tuple[Encoder, int]:
    """One pass over the splits; statistics merged in the order of the plan. Also the number of
    rows that the encoder was fitted on."""
    parts: dict[str, EncoderFit] = {}
    for answer in stream(splits, _FitWorker, (rows,), plan):
        parts[answer["split"]] = EncoderFit.from_bytes(base64.b64decode(answer["fit"]))
        on_split(answer["rows"])
    whole = EncoderFit(rows.columns, rows.schema)
    for _, split in splits:
        whole.merge(parts[split.id])
    if whole.rows == 0:
        kept = f" that pass the filter {rows.filter!r}" if rows.filter else ""
        raise Refusal(f"there are no rows to train on{kept} in {rows.input_uri}")
    return whole.finish(), whole.rows


class _Extract:
    """Raw encoder inputs of a split as one Arrow table."""

    def __init__(self, intake: Intake, all_labelled: bool) -> None:
        self.intake, self.all_labelled = intake, all_labelled

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        parts = [
            _table(lot, self.intake.roles.label, self.all_labelled)
            for _, split in descriptors(batch)
            for lot in self.intake.lots(split, Books())
        ]
        if parts:
            return pa.concat_tables(parts)
        return to_table(self.intake.encoder.nothing(), np.empty(0, np.float32))


def _table(lot: Lot, label: str | None, all_labelled: bool) -> pa.Table:
    labels = np.full(lot.rows.num_rows, np.nan, np.float32)
    if label is not None:
        column = lot.rows.column(label).cast(pa.float32())
        labels = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    if not all_labelled:
        return to_table(lot.extracted, labels)
    known = np.isfinite(labels)
    return to_table(lot.extracted.take(torch.from_numpy(known)), labels[known])


def dataset(
    intake: Intake, splits: Sequence[DaySplit], all_labelled: bool, plan: ActorPlan
) -> ray.data.Dataset:
    """A lazy dataset of tables as `encoded_table.to_table` makes them; with `all_labelled`, rows
    without a label are left out."""
    return over(splits, _Extract, (intake, all_labelled), plan)


def sample(encoder: Encoder, data: ray.data.Dataset, rows: int, most: int, seed: int) -> Batch:
    """A uniform sample without replacement of about `most` of the dataset's `rows`, encoded."""
    most = min(most, max(1, _SAMPLE_BYTES // encoder.bytes_per_row))
    share = min(1.0, most / max(1, rows))
    parts: list[Batch] = []
    for number, table in enumerate(data.iter_batches(batch_size=None, batch_format="pyarrow")):
        extracted, label = from_table(table)
        if share < 1.0:
            generator = np.random.default_rng((seed, number))
            chosen = torch.from_numpy(generator.random(len(label)) < share)
            extracted, label = extracted.take(chosen), label[chosen]
        parts.append(encoder(extracted)._replace(label=label))
    return joined(parts)


def known_anomalies(encoder: Encoder, data: ray.data.Dataset, most: int) -> Batch:
    """The first `most` rows of the dataset that are labelled as anomalies, encoded."""
    parts: list[Batch] = []
    found = 0
    for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
        extracted, label = from_table(table)
        chosen = (label > 0.5).nonzero()[: most - found, 0]
        found += len(chosen)
        parts.append(encoder(extracted.take(chosen))._replace(label=label[chosen]))
        if found == most:
            break
    return joined(parts)


class _Calibrator(SplitWorker):
    """Score sketches of held-back splits, for several detectors in one reading."""

    def __init__(self, plan: ActorPlan, intake: Intake, detectors: dict[str, Detector]) -> None:
        super().__init__(plan)
        self.intake = intake
        self.encoder = intake.encoder.to(self.device).eval()
        self.detectors = {n: d.to(self.device).eval() for n, d in detectors.items()}

    def answer(self, day: str, split: Split) -> dict[str, Any]:
        sketches = {name: [ScoreSketch(), ScoreSketch(), ScoreSketch()] for name in self.detectors}
        entities = KeySample()
        roles = self.intake.roles
        for lot in self.intake.lots(split, Books()):
            labels = None
            if roles.label:
                column = lot.rows.column(roles.label).cast(pa.float32())
                labels = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
            if roles.entity:
                entities.update(hashes([lot.rows.column(name) for name in roles.entity[:1]]))
            found = judge.scores(self.encoder, self.detectors, lot.extracted, self.device)
            for name, scores in found.items():
                everything, normal, anomalous = sketches[name]
                everything.update(scores)
                if labels is not None:
                    normal.update(scores[labels == 0])
                    anomalous.update(scores[labels == 1])
        return {
            "day": day,
            "rows": split.rows,
            "entities": entities.to_document(),
            "sketches": {
                name: [sketch.to_document() for sketch in three] for name, three in sketches.items()
            },
        }


def calibrate(
    intake: Intake,
    detectors: dict[str, Detector],
    splits: Sequence[DaySplit],
    days: float,
    plan: ActorPlan,
    on_split: OnSplit,
) -> dict[str, Calibration]:
    """The distribution of each detector's scores on held-back splits that stand for `days` days.

    Entities are those of the first entity column. A non-finite score anywhere is refused.
    """
    merged = {name: [ScoreSketch(), ScoreSketch(), ScoreSketch()] for name in detectors}
    entities: dict[str, KeySample] = {}
    for answer in stream(splits, _Calibrator, (intake, detectors), plan):
        for name, three in answer["sketches"].items():
            for whole, part in zip(merged[name], three, strict=True):
                whole.merge(ScoreSketch.from_document(part))
        seen = entities.setdefault(answer["day"], KeySample())
        seen.merge(KeySample.from_document(answer["entities"]))
        on_split(answer["rows"])
    a_day = None
    if intake.roles.entity and entities:
        a_day = sum(e.distinct for e in entities.values()) / max(days, len(entities))
    labelled = intake.roles.label is not None
    return {
        name: Calibration(
            scores=everything,
            normal=normal if labelled else None,
            anomalous=anomalous if labelled else None,
            days=days,
            entities_per_day=a_day,
        )
        for name, (everything, normal, anomalous) in merged.items()
    }
