"""Score labelled days with several detectors at once, for `evaluate`; nothing is written."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.splits.admission import AdmittedRows, Intake
from cluster.splits.engine import DaySplit, Engine, OnSplit
from cluster.splits.worker import TableWorker
from models.bundle import Bundle
from models.columns import Roles
from models.decoding.labels import decode_labels


class _Evaluator(TableWorker):
    def __init__(self, plan: ActorPlan, intake: Intake, bundles: dict[str, Bundle]) -> None:
        super().__init__(plan)
        self.intake = intake
        self.detectors = {name: self.open_model(bundle) for name, bundle in bundles.items()}

    def read(self, day: str, split: Split) -> pa.Table:
        parts = []
        for admitted in self.intake.admit(split):
            found = admitted.extracted
            scores = {name: one.score(found) for name, one in self.detectors.items()}
            table = label_scores(admitted, scores, self.intake.roles)
            parts.append(table.append_column("day", pa.array([day] * table.num_rows)))
        return pa.concat_tables(parts) if parts else self._empty_table()

    def _empty_table(self) -> pa.Table:
        columns: dict[str, Any] = {name: pa.array([], pa.float32()) for name in self.detectors}
        columns["label"] = pa.array([], pa.int8())
        if self.intake.roles.kind:
            columns["kind"] = pa.array([], pa.string())
        return pa.table({**columns, "day": pa.array([], pa.string())})


def evaluate(
    engine: Engine,
    intake: Intake,
    bundles: dict[str, Bundle],
    splits: Sequence[DaySplit],
    plan: ActorPlan,
    on_split: OnSplit,
) -> pa.Table:
    """A column of scores for each detector, `label` (int8), `kind` if the watch has one, `day`.

    The caller gets the whole table: about 10 bytes a row.
    """
    tables = []
    for table in engine.make_tables(splits, _Evaluator, (intake, bundles), plan):
        tables.append(table)
        on_split(table.num_rows)
    return pa.concat_tables(tables)


def label_scores(
    admitted: AdmittedRows, scores: Mapping[str, np.ndarray], roles: Roles
) -> pa.Table:
    """Scores beside the label (int8, null without one) and the kind of anomaly."""
    columns = {name: pa.array(values, pa.float32()) for name, values in scores.items()}
    if roles.label:
        labels = decode_labels(admitted.rows.column(roles.label), roles.normal).values
        columns["label"] = pa.array(labels, from_pandas=True).cast(pa.int8())
    if roles.kind:
        columns["kind"] = admitted.rows.column(roles.kind).cast(pa.string())
    return pa.table(columns)
