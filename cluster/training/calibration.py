"""Calibration: the distribution of each detector's scores on held-back splits."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.splits import chunks
from cluster.splits.admission import Intake
from cluster.splits.key_sample import KeySample, hashes
from cluster.splits.stream import DaySplit, OnSplit, SplitWorker, stream
from models.detectors.detector import Detector
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration


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
        for admitted in self.intake.admit(split):
            labels = None
            if roles.label:
                column = admitted.rows.column(roles.label).cast(pa.float32())
                labels = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
            if roles.entity:
                entities.update(hashes([admitted.rows.column(name) for name in roles.entity[:1]]))
            found = chunks.scores(self.encoder, self.detectors, admitted.extracted, self.device)
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
