"""The rows of splits as tables of raw encoder inputs, and samples of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from torch import Tensor

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.splits.admission import AdmittedRows, Intake
from cluster.splits.engine import DaySplit, Engine, Tables
from cluster.splits.worker import TableWorker
from cluster.training.row_tables import from_table, to_table
from models.batch import Batch, join
from models.columns import Roles
from models.decoding.labels import decode_labels
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.encoding.raw_batch import join as join_raw

# Largest encoded sample: 80,000 colour images of 32 x 32, or 200,000 rows of a usual table.
_SAMPLE_BYTES = 1024**3


class _Extract(TableWorker):
    """Raw encoder inputs of a split as one Arrow table."""

    def __init__(self, plan: ActorPlan, intake: Intake, all_labelled: bool) -> None:
        super().__init__(plan)
        self.intake, self.all_labelled = intake, all_labelled

    def read(self, day: str, split: Split) -> pa.Table:
        parts = [
            _table(admitted, self.intake.roles, self.all_labelled)
            for admitted in self.intake.admit(split)
        ]
        if parts:
            return pa.concat_tables(parts)
        return to_table(self.intake.extractor.make_empty(), np.empty(0, np.float32))


def _table(admitted: AdmittedRows, roles: Roles, all_labelled: bool) -> pa.Table:
    labels = np.full(admitted.rows.num_rows, np.nan, np.float32)
    if roles.label is not None:
        labels = decode_labels(admitted.rows.column(roles.label), roles.normal).values
    if not all_labelled:
        return to_table(admitted.extracted, labels)
    known = np.isfinite(labels)
    return to_table(admitted.extracted.take(known), labels[known])


@dataclass(frozen=True)
class TrainingData:
    """The rows of a training, as raw encoder inputs with labels (see `row_tables`)."""

    encoder: Encoder
    train: Tables
    held_back: Tables
    rows: int  # of `train` before rows without a label are left out

    def sample_train(self, most: int, seed: int) -> Batch:
        """About `most` of the training rows, drawn uniformly without replacement, encoded."""
        return _sample(self.encoder, self.train, self.rows, most, seed)

    def sample_held_back(self, most: int, seed: int) -> Batch:
        """About `most` of the held-back rows, drawn uniformly without replacement, encoded."""
        return _sample(self.encoder, self.held_back, self.held_back.count(), most, seed)

    def draw_held_back(self, most: int, seed: int) -> RawBatch:
        """The rows of `sample_held_back`, before they are encoded."""
        rows = self.held_back.count()
        return join_raw([raw for raw, _ in _draw(self.encoder, self.held_back, rows, most, seed)])

    def known_anomalies(self, most: int) -> Batch:
        """The first `most` training rows that are labelled as anomalies, encoded."""
        parts: list[Batch] = []
        found = 0
        for table in self.train:
            extracted, label = from_table(table)
            chosen = (label > 0.5).nonzero()[: most - found, 0]
            found += len(chosen)
            anomalies = self.encoder(extracted.take(chosen.numpy()))
            parts.append(anomalies._replace(label=label[chosen]))
            if found == most:
                break
        return join(parts)


def make_rows(
    engine: Engine,
    intake: Intake,
    splits: Sequence[DaySplit],
    all_labelled: bool,
    plan: ActorPlan,
) -> Tables:
    """Lazy tables (see `row_tables.to_table`). `all_labelled` leaves out rows without a label."""
    return engine.make_tables(splits, _Extract, (intake, all_labelled), plan)


def _sample(encoder: Encoder, data: Tables, rows: int, most: int, seed: int) -> Batch:
    drawn = _draw(encoder, data, rows, most, seed)
    return join([encoder(raw)._replace(label=label) for raw, label in drawn])


def _draw(
    encoder: Encoder, data: Tables, rows: int, most: int, seed: int
) -> Iterator[tuple[RawBatch, Tensor]]:
    """About `most` of the rows with their labels, in parts."""
    most = min(most, max(1, _SAMPLE_BYTES // encoder.bytes_per_row))
    share = min(1.0, most / max(1, rows))
    for number, table in enumerate(data):
        raw, label = from_table(table)
        if share < 1.0:
            generator = np.random.default_rng((seed, number))
            chosen = np.flatnonzero(generator.random(len(label)) < share)
            raw, label = raw.take(chosen), label[chosen]
        yield raw, label
