"""The books of a run: what became of every row of the snapshot."""

from typing import Any

from cluster.distinct import KeySample
from cluster.lake.shard import Shard
from cluster.lake.snapshot import Snapshot
from models.score_histogram import ScoreHistogram


class UnbalancedError(RuntimeError):
    """Rows of the snapshot are not accounted for: a fault of ours, never of the input."""


class Balance:
    """Receipts of splits, added up."""

    def __init__(self, snapshot: Snapshot, splits: int, receipts: list[dict[str, Any]]) -> None:
        self.snapshot, self.splits = snapshot, splits
        self.receipts: dict[str, dict[str, Any]] = {}
        self.rows = self.filtered = self.scored = self.quarantined = self.flagged = 0
        self.non_finite = self.retried = 0
        self.sketch = ScoreHistogram()
        self.keys = KeySample()
        self.hours: dict[int, list[int]] = {}
        for receipt in receipts:
            self.add(receipt)

    def add(self, receipt: dict[str, Any]) -> None:
        if receipt["split"] in self.receipts:
            raise UnbalancedError(f"split {receipt['split']} was answered twice")
        self.receipts[receipt["split"]] = receipt
        for name in ("rows", "filtered", "scored", "quarantined", "flagged"):
            setattr(self, name, getattr(self, name) + receipt[name])
        self.retried += receipt["attempt"] > 1
        self.non_finite += receipt["non_finite"]
        self.sketch.merge(ScoreHistogram.from_document(receipt["sketch"]))
        self.keys.merge(KeySample.from_document(receipt["keys"]))
        for hour, (rows, flags) in receipt["hours"].items():
            entry = self.hours.setdefault(int(hour), [0, 0])
            entry[0] += rows
            entry[1] += flags

    def check(self) -> None:
        """Every row of the snapshot is filtered, scored or quarantined; else this raises."""
        if len(self.receipts) != self.splits:
            raise UnbalancedError(
                f"{self.splits} splits were planned and {len(self.receipts)} answered: "
                "nothing is committed; run the same command again to finish"
            )
        accounted = self.filtered + self.scored + self.quarantined
        if not self.snapshot.rows == self.rows == accounted:
            raise UnbalancedError(
                f"the snapshot has {self.snapshot.rows:,} rows, the splits {self.rows:,}, and "
                f"{self.filtered:,} filtered + {self.scored:,} scored + {self.quarantined:,} "
                f"quarantined = {accounted:,}: nothing is committed"
            )

    @property
    def repeats_across_splits(self) -> int:
        """Estimated rows whose id another split has too (those within a split are set aside)."""
        return round(self.keys.repeats)

    @property
    def unreadable_files(self) -> set[str]:
        """Files that could not be read, at the snapshot or later."""
        late = {bad["file"] for r in self.receipts.values() for bad in r["unreadable"]}
        return late | {file.key for file in self.snapshot.rejected}

    def shards(self, kind: str) -> list[Shard]:
        """Shards of all splits in the order of their ids: the commit does not depend on timing."""
        return [
            Shard.from_document(document)
            for _, receipt in sorted(self.receipts.items())
            for document in receipt[kind]
        ]

    def rules(self) -> list[dict[str, Any]]:
        """Rows set aside by column and rule, most first; files by rule."""
        grouped: dict[tuple[str, str], dict[str, Any]] = {}
        for _, receipt in sorted(self.receipts.items()):
            for rule in receipt["rules"]:
                key = (rule["column"], rule["rule"])
                entry = grouped.setdefault(
                    key,
                    {
                        "column": rule["column"],
                        "file": rule["file"],
                        "rule": rule["rule"],
                        "rows": 0,
                        "examples": rule["examples"],
                    },
                )
                entry["rows"] += rule["rows"]
                if entry["file"] != rule["file"]:
                    entry["file"] = None
        files: list[dict[str, Any]] = [
            {"column": None, "file": f.key, "rule": f.rule, "rows": 0, "examples": []}
            for f in self.snapshot.rejected
        ]
        late = [
            {
                "column": None,
                "file": bad["file"],
                "rule": bad["rule"],
                "rows": bad["rows"],
                "examples": [],
            }
            for _, r in sorted(self.receipts.items())
            for bad in r["unreadable"]
        ]
        return [*files, *late, *sorted(grouped.values(), key=lambda e: -e["rows"])]

    def warnings(self) -> list[str]:
        found = []
        if self.repeats_across_splits:
            found.append(
                f"about {self.repeats_across_splits:,} rows have an id that another split has too"
            )
        return found
