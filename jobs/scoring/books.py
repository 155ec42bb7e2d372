"""The books of a run: what became of every row of the snapshot."""

import json
from collections.abc import Collection, Iterator, KeysView, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

from cluster.lake.input.snapshot import Snapshot
from cluster.lake.output.shard import Shard
from cluster.scoring.receipt import HourCounts, QuarantineRule, Receipt
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample
from models import canonical_json
from models.scores.histogram import ScoreHistogram


class UnbalancedError(RuntimeError):
    """Rows of the snapshot are not accounted for: a fault of Anomaray, never of the input."""


class _ColumnRule(NamedTuple):
    """A rule of the quarantine, and the first task that broke it."""

    task: str
    rule: QuarantineRule


class Books:
    """The sum of the receipts of some tasks; books of different tasks can be added.

    They grow by about 300 bytes a task, for the names of its shards. All else has a fixed size.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.scores = ScoreHistogram()
        self.keys = KeySample()
        self.hours: dict[int, HourCounts] = {}
        self._shards: dict[str, bytes] = {}  # by task, as JSON: a tenth of the size of objects
        self._column_rules: dict[tuple[str, str], _ColumnRule] = {}
        self._unreadable: list[QuarantineRule] = []

    @property
    def tasks(self) -> KeysView[str]:
        """Ids of the tasks."""
        return self._shards.keys()

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of a task. Raises `UnbalancedError` for a task that is in the books."""
        shards = {table: shard.to_document() for table, shard in receipt.shards.items()}
        self._add(receipt, {receipt.task: canonical_json.encode(shards)})
        for rule in receipt.quarantine:
            self._add_rule(_ColumnRule(receipt.task, rule))

    def merge(self, other: "Books") -> None:
        """Add the books of other tasks, which stay as they are."""
        self._add(other, other._shards)
        self._unreadable += other._unreadable
        for one in other._column_rules.values():
            self._add_rule(one)

    def _add(self, other: "Receipt | Books", shards: Mapping[str, bytes]) -> None:
        for task in shards.keys() & self.tasks:
            raise UnbalancedError(f"task {task} was answered twice")
        self._shards |= shards
        self.counts += other.counts
        self.scores.merge(other.scores)
        self.keys.merge(other.keys)
        for hour, (rows, flagged) in other.hours.items():
            known = self.hours.get(hour, HourCounts(0, 0))
            self.hours[hour] = HourCounts(known.rows + rows, known.flagged + flagged)

    def _add_rule(self, new: _ColumnRule) -> None:
        """The examples kept are those of the task with the first id, so that no order shows."""
        if new.rule.column is None:
            self._unreadable.append(new.rule)
            return
        key = (new.rule.column, new.rule.rule)
        known = self._column_rules.setdefault(key, new)
        if known is not new:
            first = min(known, new, key=lambda one: one.task)
            file = new.rule.file if new.rule.file == known.rule.file else None
            rows = known.rule.rows + new.rule.rows
            rule = replace(first.rule, rows=rows, file=file)
            self._column_rules[key] = _ColumnRule(first.task, rule)

    def shards(self, table: str) -> Iterator[Shard]:
        """Shards of the table, ordered by task id: the commit does not depend on timing."""
        named = f'"{table}":'.encode()
        for task in sorted(self._shards):
            if named in self._shards[task]:
                yield Shard.from_document(json.loads(self._shards[task])[table])

    def find_tasks(self, shards: Collection[tuple[str, str]]) -> set[str]:
        """The tasks that wrote one of these shards, each given by its table and key."""
        return {
            task
            for task, written in self._shards.items()
            if any((table, one["key"]) in shards for table, one in json.loads(written).items())
        }

    def to_document(self) -> dict[str, Any]:
        return {
            "counts": self.counts.to_document(),
            "scores": self.scores.to_document(),
            "keys": self.keys.to_document(),
            "hours": {str(hour): counts for hour, counts in self.hours.items()},
            "tasks": {task: json.loads(shards) for task, shards in self._shards.items()},
            "column_rules": [
                {"task": one.task, "rule": one.rule.to_document()}
                for one in self._column_rules.values()
            ],
            "unreadable": [rule.to_document() for rule in self._unreadable],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        books = cls()
        books.counts = Counts.from_document(document["counts"])
        books.scores = ScoreHistogram.from_document(document["scores"])
        books.keys = KeySample.from_document(document["keys"])
        hours = document["hours"].items()
        books.hours = {int(hour): HourCounts(*counts) for hour, counts in hours}
        for task, shards in document["tasks"].items():
            books._shards[task] = canonical_json.encode(shards)
        for one in document["column_rules"]:
            rule = QuarantineRule.from_document(one["rule"])
            books._add_rule(_ColumnRule(one["task"], rule))
        books._unreadable = [QuarantineRule.from_document(rule) for rule in document["unreadable"]]
        return books


class RunBooks(Books):
    """The books of a run: at its end they must hold every task of the plan and every row."""

    def __init__(self, snapshot: Snapshot, planned: Counts) -> None:
        """`planned` counts the tasks and splits of the plan."""
        super().__init__()
        self.snapshot, self.planned = snapshot, planned

    def check(self) -> None:
        """Raise `UnbalancedError` unless every row is filtered, scored or quarantined."""
        counts = self.counts
        for name, planned, answered in (
            ("tasks", self.planned.tasks, counts.tasks),
            ("splits", self.planned.splits, counts.splits),
        ):
            if planned != answered:
                raise UnbalancedError(
                    f"{planned:,} {name} were planned and {answered:,} answered: nothing is "
                    "committed; run the same command again to finish"
                )
        if self.snapshot.rows != counts.rows or counts.unaccounted:
            raise UnbalancedError(
                f"the snapshot has {self.snapshot.rows:,} rows, the splits {counts.rows:,}, and "
                f"{counts.filtered:,} filtered + {counts.scored:,} scored + "
                f"{counts.quarantined:,} quarantined = {counts.rows - counts.unaccounted:,}: "
                "nothing is committed"
            )

    @property
    def repeats_across_splits(self) -> int:
        """Estimated rows whose id another split has too (within a split they are quarantined)."""
        return round(self.keys.repeats)

    @property
    def unreadable_files(self) -> set[str]:
        """Files that could not be read, at the snapshot or later."""
        late = {rule.file for rule in self._unreadable if rule.file is not None}
        return late | {file.key for file in self.snapshot.rejected}

    def quarantine(self) -> list[QuarantineRule]:
        """Files that could not be read, then rows by column and rule, most first."""
        late = [(rule.file or "", rule.rule, rule.rows) for rule in self._unreadable]
        files = [*((file.key, file.rule, 0) for file in self.snapshot.rejected), *sorted(late)]
        columns = sorted(self._column_rules.items(), key=lambda item: (-item[1].rule.rows, item[0]))
        return [
            *(QuarantineRule(file, None, rule, rows) for file, rule, rows in files),
            *(one.rule for _, one in columns),
        ]

    def warnings(self) -> list[str]:
        found = [f"of no day: {one}" for one in self.snapshot.stray]
        found += [f"set aside: {file.message}" for file in self.snapshot.misnamed]
        if repeats := self.repeats_across_splits:
            found.append(f"about {repeats:,} rows have an id that another split has too")
        return found
