"""Whether a day is committed: by one run in every table, with all of its files there."""

from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa
from deltalake import DeltaTable

from cluster.lake.output.journal import Journal
from cluster.lake.output.schemas import FLAGS, QUARANTINE, RUNS, SCORES
from cluster.lake.output.shard import find_missing
from cluster.lake.output.table import (
    find_beside,
    has_day,
    is_last,
    list_commits,
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
        runs = {table.last_runs[day] for table in tables if day in table.last_runs}
        return len(runs) <= 1 and all(
            table.is_last(day, f"snapshot={digest}") and table.has_files(day) for table in tables
        )

    def is_accounted_for(self, day: str) -> bool:
        """Whether the run that committed the day has written its run card and its result, or its
        journal is gone."""
        run = self._tables[FLAGS].last_runs.get(day)
        if run is None:
            return True  # the log reaches back no further
        journal = Journal(self.output.child(RUNS), run)
        return journal.read_result() is not None or not journal.is_begun()

    def _tables_of(self, day: str) -> Sequence["_Table"]:
        """The tables that the day has, or must have."""
        flags, quarantine, scores = self._tables.values()
        if flags.names(day, SCORES) or has_day(scores.table, day):
            return flags, quarantine, scores
        return flags, quarantine


def read_beside(output: Store, name: str, day: str) -> pa.RecordBatchReader | None:
    """The rows of a day in a table beside the flags, of the run that the flags are of.

    They are read from the version that the commit of the flags names. None where there is none: no
    run has committed the day, or none that writes such a table.
    """
    flags, store = open_table(output.child(FLAGS)), output.child(name)
    version = None if flags is None else find_beside(flags, day, name)
    if version is None:
        return None
    table = open_version(store, version) or open_table(store)  # its log forgets after a month
    return None if table is None else read_rows(table, store, day)


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
    def last_runs(self) -> dict[str, str]:
        """The run of the last commit of each day that the log still has."""
        runs: dict[str, str] = {}
        for logged in list_commits(self.table):  # newest first
            runs.setdefault(logged.commit.day, logged.commit.run_id)
        return runs

    @cached_property
    def _files(self) -> pa.Table:
        return list_files(self.table)
