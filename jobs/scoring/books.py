"""The books of a run: what became of every row of the snapshot."""

import json
from collections.abc import Iterator, KeysView
from typing import Any, Self

from cluster.lake.input.snapshot import Snapshot
from cluster.lake.output.shard import Shard
from cluster.splits.key_sample import KeySample
from models import canonical_json
from models.scores.histogram import ScoreHistogram


class UnbalancedError(RuntimeError):
    """Rows of the snapshot are not accounted for: a fault of ours, never of the input."""


# Output of a split, by the table or folder that it is of; names of a receipt.
_SHARDS = ("shards", "score_shards", "quarantine_shards", "labelled")
_ROWS = ("rows", "filtered", "scored", "quarantined", "flagged", "non_finite")
_COUNTS = (*_ROWS, "retried", "resent")


class Account:
    """What became of the rows of some splits; accounts of different splits can be added.

    It grows by some 300 bytes a split: names of shards. All else is of one size.
    """

    def __init__(self) -> None:
        self.rows = self.filtered = self.scored = self.quarantined = self.flagged = 0
        self.non_finite = 0
        self.retried = self.resent = 0  # splits; requests to the store
        self.sketch = ScoreHistogram()
        self.keys = KeySample()
        self.hours: dict[int, list[int]] = {}
        self._shards: dict[str, bytes] = {}  # by split, as JSON: a tenth of its size as objects
        self._rules: dict[tuple[str, str], dict[str, Any]] = {}
        self._unreadable: list[dict[str, Any]] = []

    @classmethod
    def of(cls, receipt: dict[str, Any]) -> Self:
        """The account of one split."""
        return cls.from_document(
            {
                **{name: receipt[name] for name in ("sketch", "keys", "hours", "unreadable")},
                **{name: receipt[name] for name in _COUNTS if name != "retried"},
                "retried": int(receipt["attempt"] > 1),
                "splits": {receipt["split"]: {kind: receipt[kind] for kind in _SHARDS}},
                "rules": [{**rule, "split": receipt["split"]} for rule in receipt["rules"]],
            }
        )

    @property
    def splits(self) -> KeysView[str]:
        """Ids of the splits."""
        return self._shards.keys()

    def merge(self, other: "Account") -> None:
        """Add the account of other splits, which stays as it is."""
        for split in other.splits & self.splits:
            raise UnbalancedError(f"split {split} was answered twice")
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.sketch.merge(other.sketch)
        self.keys.merge(other.keys)
        for hour, (rows, flags) in other.hours.items():
            entry = self.hours.setdefault(hour, [0, 0])
            entry[0] += rows
            entry[1] += flags
        self._shards |= other._shards
        self._unreadable += other._unreadable
        for rule in other._rules.values():
            self._add_rule(rule)

    def _add_rule(self, rule: dict[str, Any]) -> None:
        """The examples are those of the first split by its id, so that no order shows."""
        key = (rule["column"], rule["rule"])
        known = self._rules.setdefault(key, rule)
        if known is not rule:
            first = min(known, rule, key=lambda one: str(one["split"]))
            file = rule["file"] if rule["file"] == known["file"] else None
            self._rules[key] = {**first, "rows": known["rows"] + rule["rows"], "file": file}

    def shards(self, kind: str) -> Iterator[Shard]:
        """Shards of all splits in the order of their ids: the commit does not depend on timing."""
        named = f'"{kind}":'.encode()
        for split in sorted(self._shards):
            if named in self._shards[split]:
                for document in json.loads(self._shards[split])[kind]:
                    yield Shard.from_document(document)

    def to_document(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "sketch": self.sketch.to_document(),
            "keys": self.keys.to_document(),
            "hours": {str(hour): entry for hour, entry in self.hours.items()},
            "splits": {split: json.loads(shards) for split, shards in self._shards.items()},
            "rules": list(self._rules.values()),
            "unreadable": self._unreadable,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        account = cls()
        for name in _COUNTS:
            setattr(account, name, document[name])
        account.sketch = ScoreHistogram.from_document(document["sketch"])
        account.keys = KeySample.from_document(document["keys"])
        account.hours = {int(hour): list(entry) for hour, entry in document["hours"].items()}
        for split, shards in document["splits"].items():
            filled = {kind: found for kind, found in shards.items() if found}
            account._shards[split] = canonical_json.encode(filled)
        for rule in document["rules"]:
            account._add_rule(rule)
        account._unreadable = document["unreadable"]
        return account


class Balance(Account):
    """The account of a run: at its end it must be that of all its splits."""

    def __init__(self, snapshot: Snapshot, planned: int) -> None:
        super().__init__()
        self.snapshot, self.planned = snapshot, planned

    def check(self) -> None:
        """Every row of the snapshot is filtered, scored or quarantined; else this raises."""
        if len(self.splits) != self.planned:
            raise UnbalancedError(
                f"{self.planned} splits were planned and {len(self.splits)} answered: "
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
        late = {bad["file"] for bad in self._unreadable}
        return late | {file.key for file in self.snapshot.rejected}

    def rules(self) -> list[dict[str, Any]]:
        """Rows set aside by column and rule, most first; files by rule."""
        rejected = [(file.key, file.rule, 0) for file in self.snapshot.rejected]
        late = sorted((bad["file"], bad["rule"], bad["rows"]) for bad in self._unreadable)
        files = [
            {"column": None, "file": file, "rule": rule, "rows": rows, "examples": []}
            for file, rule, rows in (*rejected, *late)
        ]
        columns = sorted(self._rules.items(), key=lambda item: (-item[1]["rows"], item[0]))
        names = ("column", "file", "rule", "rows", "examples")
        return [*files, *({name: rule[name] for name in names} for _, rule in columns)]

    def warnings(self) -> list[str]:
        found = []
        if self.repeats_across_splits:
            found.append(
                f"about {self.repeats_across_splits:,} rows have an id that another split has too"
            )
        return found
