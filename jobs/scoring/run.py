"""A run: the scoring of one day with one bundle, one threshold and one spec."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from cluster.lake.input.snapshot import Snapshot
from cluster.lake.registry.registry import Entry
from cluster.lake.storage.store import Store
from cluster.runtime.resources import Demand
from cluster.scoring.disguise import Disguise
from cluster.scoring.scorer import ScoringJob
from cluster.splits.admission import CHUNKS
from jobs.spec.spec import Spec
from models.bundle import Backend, Bundle
from models.footprint import Footprint
from models.scores.threshold import Threshold


@dataclass(frozen=True)
class Run:
    """The inputs of a run. Equal inputs have one run id; any other input makes another run."""

    spec: Spec
    day: str
    champion: Entry
    bundle: Bundle
    threshold: Threshold
    snapshot: Snapshot
    output: Store
    backend: Backend  # that computes its scores: one run never mixes two

    @cached_property
    def key_id(self) -> str:
        """Id of the key for sensitive columns; "" if none is needed, `Refusal` if it is missing."""
        return Disguise.of(self.spec.roles).key_id

    @cached_property
    def run_id(self) -> str:
        """16 hexadecimal digits of a digest of the inputs."""
        parts = (
            self.snapshot.digest,
            self.bundle.digest,
            self.threshold.id,
            self.spec.scoring_digest,
            self.backend,
            *([self.key_id] if self.key_id else []),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def list_forms(self) -> Iterator["Run"]:
        """The run by each backend that can compute its scores."""
        for backend in sorted({self.bundle.choose_backend(gpus) for gpus in (False, True)}):
            yield replace(self, backend=backend)

    @property
    def facts(self) -> dict[str, str]:
        """The inputs, as the plan in the journal names them."""
        return {
            "watch": self.spec.name,
            "day": self.day,
            "snapshot": self.snapshot.digest,
            "bundle": self.bundle.id,
            "threshold": self.threshold.id,
            "backend": self.backend,
        }

    @property
    def job(self) -> ScoringJob:
        """The facts that its workers need; each time of another driver."""
        return ScoringJob(
            run_id=self.run_id,
            day=self.day,
            input_uri=self.snapshot.uri,
            output_uri=self.output.uri,
            schema=self.snapshot.schema,
            roles=self.spec.roles,
            filter=self.spec.input_filter,
            bundle=self.bundle.id,
            digest=self.bundle.digest,
            backend=self.backend,
            threshold=self.threshold.value,
            top_reasons=self.spec.output.reasons,
            all_scores=self.spec.output.scores == "all",
            key_id=self.key_id,
        )

    def demand(self, split: int) -> Demand:
        """The memory that a worker needs for splits of at most `split` bytes: for one split, one
        batch that is encoded and one chunk that is scored. A bundle without measured memory counts
        the split alone."""
        measured = self.bundle.metadata.get("memory")
        if measured is None:
            return Demand(split)
        footprint, chunk = Footprint(**measured), self.bundle.extractor.layout.chunk_rows
        batch = footprint.bytes_of(chunk) - footprint.weights
        batch += CHUNKS * chunk * self.bundle.extractor.bytes_per_row
        return Demand(split, footprint.weights, batch)
