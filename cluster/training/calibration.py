"""Calibration: the distribution of each detector's scores on held-back rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster.lake.input.splits import Split
from cluster.runtime.resources import ActorPlan
from cluster.splits.admission import Intake
from cluster.splits.engine import DaySplit, Engine, OnSplit
from cluster.splits.key_sample import KeySample, hash_keys
from cluster.splits.worker import SplitWorker
from models.decoding.labels import decode_labels
from models.detectors.detector import Detector
from models.eager import score_rows
from models.encoding.encoder import Encoder
from models.scores.sketch import ScoreSketch
from models.scores.threshold import Calibration


class _Sketches(NamedTuple):
    """Scores of one detector: of all rows, of normal rows, of anomalies."""

    everything: ScoreSketch
    normal: ScoreSketch
    anomalous: ScoreSketch


def _empty_sketches(names: Iterable[str]) -> dict[str, _Sketches]:
    return {name: _Sketches(ScoreSketch(), ScoreSketch(), ScoreSketch()) for name in names}


@dataclass(frozen=True)
class _CalibrationPart:
    """Scores and entities of one split."""

    day: str
    rows: int
    entities: KeySample
    sketches: dict[str, _Sketches]  # by detector

    def to_document(self) -> dict[str, Any]:
        return {
            "day": self.day,
            "rows": self.rows,
            "entities": self.entities.to_document(),
            "sketches": {
                name: [sketch.to_document() for sketch in three]
                for name, three in self.sketches.items()
            },
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "_CalibrationPart":
        sketches = {
            name: _Sketches(*map(ScoreSketch.from_document, three))
            for name, three in document["sketches"].items()
        }
        entities = KeySample.from_document(document["entities"])
        return cls(document["day"], document["rows"], entities, sketches)


class _Calibrator(SplitWorker[Split, _CalibrationPart]):
    """Sketches the scores of several detectors, in one reading of the held-back splits."""

    work_type, answer_type = Split, _CalibrationPart

    def __init__(
        self, plan: ActorPlan, intake: Intake, encoder: Encoder, detectors: dict[str, Detector]
    ) -> None:
        super().__init__(plan)
        self.intake = intake
        self.encoder = encoder.to(self.device).eval()
        self.detectors = {n: d.to(self.device).eval() for n, d in detectors.items()}

    def answer(self, day: str, split: Split) -> _CalibrationPart:
        sketches = _empty_sketches(self.detectors)
        entities = KeySample()
        roles = self.intake.roles
        for admitted in self.intake.admit(split):
            labels = None
            if roles.label:
                column = admitted.rows.column(roles.label)
                labels = decode_labels(column, roles.normal).values
            if roles.entity:
                entities.update(hash_keys([admitted.rows.column(roles.entity[0])]))
            found = score_rows(self.encoder, self.detectors, admitted.extracted)
            for name, scores in found.items():
                everything, normal, anomalous = sketches[name]
                everything.update(scores)
                if labels is not None:
                    normal.update(scores[labels == 0])
                    anomalous.update(scores[labels == 1])
        return _CalibrationPart(day, split.rows, entities, sketches)


def calibrate(
    engine: Engine,
    intake: Intake,
    encoder: Encoder,
    detectors: dict[str, Detector],
    splits: Sequence[DaySplit],
    days: float,
    plan: ActorPlan,
    on_split: OnSplit,
) -> dict[str, Calibration]:
    """The distribution of each detector's scores on held-back splits, which are the rows of `days`
    days.

    Entities are counted by the first entity column. Raises Refusal for a score that is not finite.
    """
    merged = _empty_sketches(detectors)
    entities: dict[str, KeySample] = {}
    for _, part in engine.stream(splits, _Calibrator, (intake, encoder, detectors), plan):
        for name, three in part.sketches.items():
            for whole, sketch in zip(merged[name], three, strict=True):
                whole.merge(sketch)
        entities.setdefault(part.day, KeySample()).merge(part.entities)
        on_split(part.rows)
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
