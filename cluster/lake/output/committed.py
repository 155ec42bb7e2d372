"""Whether a day is committed: by one run in every table, with all of its files there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
from deltalake import DeltaTable

from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, QUARANTINE, RUNS, SCORES
from cluster.lake.output.shard import find_missing
from cluster.lake.output.table import (
    Commit,
    find_beside,
    has_day,
    is_last,
    list_commits,
    list_days,
    list_files,
    read_rows,
    select_day,
)
from cluster.lake.storage.delta import open_table, open_version
from cluster.lake.storage.store import Store


class CommittedDays:
    """The days of an output, as its tables are when this is first asked.

    The commit of the flags decides, and is the last of a run. A day is not whole where another
    table is of another run, or where a file that a table names is not there: scoring it again puts
    that right.
    """

    def __init__(self, output: Store) -> None:
        self.output = output
        names = (FLAGS, QUARANTINE, SCORES)
        self._tables = {name: _Table(output.child(name)) for name in names}

    def has(self, day: str) -> bool:
        """Whether flags of the day were ever committed."""
        return has_day(self._tables[FLAGS].table, day)

    def is_run_whole(self, day: str, run_id: str) -> bool:
        """Whether the run's commit of the day is the last in every table, with all files there."""
        what = f"run={run_id}"
        return self._tables[FLAGS].is_last(day, what) and all(
            table.is_last(day, what) and table.has_files(day) for table in self._tables_of(day)
        )

    def is_snapshot_whole(self, day: str, digest: str) -> bool:
        """Whether one run of this snapshot has committed the day, as in `is_run_whole`."""
        tables = self._tables_of(day)
        commits = [table.last_commits[day] for table in tables if day in table.last_commits]
        runs = {commit.run_id for commit in commits}
        return len(runs) <= 1 and all(
            table.is_last(day, f"snapshot={digest}") and table.has_files(day) for table in tables
        )

    def is_accounted_for(self, day: str) -> bool:
        """Whether the run that committed the day has written its run card and its result, or its
        journal is gone."""
        commit = self.find_commit(day)
        if commit is None:
            return True  # the log reaches back no further
        journal = Journal(self.output.child(RUNS), commit.run_id)
        return journal.read_result() is not None or not journal.is_begun()

    def find_commit(self, day: str) -> Commit | None:
        """The last commit of the day's flags, if the log still has it."""
        return self._tables[FLAGS].last_commits.get(day)

    def _tables_of(self, day: str) -> Sequence["_Table"]:
        """The tables that the day has, or must have."""
        flags, quarantine, scores = self._tables.values()
        if flags.names(day, SCORES) or has_day(scores.table, day):
            return flags, quarantine, scores
        return flags, quarantine


@dataclass(frozen=True)
class Beside:
    """A table beside the flags, of each day the rows of the run that the flags are of."""

    store: Store
    newest: DeltaTable
    versions: Mapping[str, int]  # by day, as the commits of the flags name them

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(self.newest.schema().to_arrow())

    def read(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.schema, self._read())

    def _read(self) -> Iterator[pa.RecordBatch]:
        for version, days in self._group_days().items():
            # Its log forgets after a month.
            table = self.newest if version is None else open_version(self.store, version)
            yield from read_rows(table or self.newest, self.store, days)

    def _group_days(self) -> dict[int | None, list[str]]:
        """The days by the version to read them at; None for the newest, in which most days are as
        they were: to open each at a version of its own takes long."""
        last: dict[str, int] = {}
        for logged in list_commits(self.newest):  # newest first
            last.setdefault(logged.commit.day, logged.version)
        groups: dict[int | None, list[str]] = {}
        for day, version in self.versions.items():
            changed = last.get(day, 0) > version
            groups.setdefault(version if changed else None, []).append(day)
        return groups


def open_beside(
    flags: DeltaTable | None, output: Store, name: str, day: str | None = None
) -> Beside | None:
    """The table beside the flags, of one day or of all.

    None where no commit of these flags names a version of it: no run has committed the day, or none
    that writes such a table.
    """
    store = output.child(name)
    newest = open_table(store)
    if flags is None or newest is None:
        return None
    days = {*list_days(flags), *list_days(newest)} if day is None else {day}
    found = {one: find_beside(flags, one, name) for one in sorted(days)}
    versions = {one: version for one, version in found.items() if version is not None}
    return Beside(store, newest, versions) if versions else None


class _Table:
    def __init__(self, store: Store) -> None:
        self.store = store

    @cached_property
    def table(self) -> DeltaTable | None:
        return open_table(self.store)

    def is_last(self, day: str, what: str) -> bool:
        return is_last(self.table, day, what)

    def names(self, day: str, other: str) -> bool:
        return self.table is not None and find_beside(self.table, day, other) is not None

    def has_files(self, day: str) -> bool:
        return not find_missing(self.store, select_day(self._files, self.store, day))

    @cached_property
    def last_commits(self) -> dict[str, Commit]:
        """The last commit of each day that the log still has."""
        commits: dict[str, Commit] = {}
        for logged in list_commits(self.table):  # newest first
            commits.setdefault(logged.commit.day, logged.commit)
        return commits

    @cached_property
    def _files(self) -> pa.Table:
        return list_files(self.table)
