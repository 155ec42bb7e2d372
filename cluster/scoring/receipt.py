"""The receipt: a worker's answer for one task, JSON only in the journal and between processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cluster.lake.output.shard import Shard
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample
from models.scores.histogram import ScoreHistogram

LABELLED = "labelled"  # shards with scores beside labels, for the run card; of no table


class HourCounts(NamedTuple):
    """Counts of one hour of the rows' own time."""

    rows: int
    flagged: int


@dataclass(frozen=True, slots=True)
class QuarantineRule:
    """Rows of a file that one rule set aside, or a split that could not be read."""

    file: str | None  # None for the rows of several files
    column: str | None  # None for a split that could not be read
    rule: str
    rows: int
    examples: tuple[int, ...] = ()  # row numbers in the file
    settled: bool = True  # False for a split that can perhaps be read later

    def to_document(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "column": self.column,
            "rule": self.rule,
            "rows": self.rows,
            "examples": self.examples,
            "settled": self.settled,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "QuarantineRule":
        return cls(**{**document, "examples": tuple(document["examples"])})


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of the rows of a task, and the files that were written of them."""

    task: str  # its id
    attempt: int  # from 1
    counts: Counts
    scores: ScoreHistogram  # of the finite scores
    keys: KeySample  # ids of the scored rows
    hours: Mapping[int, HourCounts]  # by hours since 1970 (UTC)
    quarantine: tuple[QuarantineRule, ...]
    shards: Mapping[str, Shard]  # by table, and `LABELLED`; without the tables that got no row
    stages: Mapping[str, float]  # seconds of the worker's thread by stage

    @property
    def refused(self) -> bool:
        """Whether a split of it could not be read."""
        return any(rule.column is None for rule in self.quarantine)

    def to_document(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "attempt": self.attempt,
            "counts": self.counts.to_document(),
            "scores": self.scores.to_document(),
            "keys": self.keys.to_document(),
            "hours": {str(hour): counts for hour, counts in self.hours.items()},
            "quarantine": [rule.to_document() for rule in self.quarantine],
            "shards": {table: shard.to_document() for table, shard in self.shards.items()},
            "stages": dict(self.stages),
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Receipt":
        shards = document["shards"].items()
        return cls(
            task=document["task"],
            attempt=document["attempt"],
            counts=Counts.from_document(document["counts"]),
            scores=ScoreHistogram.from_document(document["scores"]),
            keys=KeySample.from_document(document["keys"]),
            hours={int(hour): HourCounts(*counts) for hour, counts in document["hours"].items()},
            quarantine=tuple(map(QuarantineRule.from_document, document["quarantine"])),
            shards={table: Shard.from_document(shard) for table, shard in shards},
            stages=document["stages"],
        )
