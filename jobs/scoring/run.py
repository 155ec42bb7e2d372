"""A run: one day, one bundle, one threshold, one spec."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from cluster.lake.input.snapshot import Snapshot
from cluster.lake.registry.registry import Entry
from cluster.lake.storage.store import Store
from cluster.runtime.resources import Demand
from cluster.scoring.disguise import Disguise
from cluster.scoring.scorer import ScoringJob
from cluster.splits.admission import CHUNKS
from jobs.spec.spec import Spec
from models.bundle import Bundle
from models.scores.threshold import Threshold
from models.training.memory import Footprint


@dataclass(frozen=True)
class Run:
    """What a run is made of: the same inputs give the same run, any other is another run."""

    spec: Spec
    day: str
    champion: Entry
    bundle: Bundle
    threshold: Threshold
    snapshot: Snapshot
    output: Store

    @cached_property
    def key_id(self) -> str:
        """Of the key of sensitive columns; "" without one. `Refusal` where one is missing."""
        return Disguise.of(self.spec.roles).key_id

    @property
    def run_id(self) -> str:
        parts = (
            self.snapshot.digest,
            self.bundle.digest,
            self.threshold.id,
            self.spec.scoring_digest,
            *([self.key_id] if self.key_id else []),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    @property
    def facts(self) -> dict[str, str]:
        """What a plan names the run by."""
        return {
            "watch": self.spec.name,
            "day": self.day,
            "snapshot": self.snapshot.digest,
            "bundle": self.bundle.id,
            "threshold": self.threshold.id,
        }

    @property
    def job(self) -> ScoringJob:
        return ScoringJob(
            run_id=self.run_id,
            input_uri=self.snapshot.uri,
            output_uri=self.spec.output.uri,
            schema=self.snapshot.schema,
            roles=self.spec.roles,
            filter=self.spec.input.filter,
            bundle=self.bundle.id,
            digest=self.bundle.digest,
            threshold=self.threshold.value,
            top_reasons=self.spec.output.reasons,
            all_scores=self.spec.output.scores == "all",
            key_id=self.key_id,
        )

    def demand(self, split: int) -> Demand:
        """The memory that an actor needs for splits of so many bytes at most: one, and computing
        one chunk while a batch of them is encoded. A bundle of before it was measured counts its
        splits alone."""
        measured = self.bundle.metadata.get("memory")
        if measured is None:
            return Demand(split)
        footprint, chunk = Footprint(**measured), self.bundle.encoder.layout.chunk_rows
        batch = footprint.bytes_of(chunk) - footprint.weights
        batch += CHUNKS * chunk * self.bundle.encoder.bytes_per_row
        return Demand(split, footprint.weights, batch)
