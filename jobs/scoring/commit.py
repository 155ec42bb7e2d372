"""The commit of a day: side tables first, then the flags, whose commit is the one that counts."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyarrow as pa

from cluster.lake.output.schemas import (
    FLAGS,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SCORES,
    flag_schema,
    score_schema,
)
from cluster.lake.output.shard import Shard, shard_key, write_shard
from cluster.lake.output.table import Commit, LakeTable, count_commits, read_schema
from cluster.lake.storage.delta import OpenedTable
from cluster.lake.storage.store import Store
from jobs.scoring.books import RunBooks
from jobs.scoring.run import Run


class OutputTables:
    """The tables of an output, which the days of a command share."""

    def __init__(self, output: Store) -> None:
        names = (FLAGS, QUARANTINE, SCORES)
        self.output = output
        self._opened = {name: OpenedTable(output.child(name)) for name in names}

    def count_commits(self, day: str) -> dict[str, int]:
        """How often the day was committed so far to each table."""
        tables = self._opened.items()
        return {name: count_commits(opened.refresh(), day) for name, opened in tables}

    def open(self, name: str, schema: pa.Schema) -> LakeTable:
        opened = self._opened[name]
        return LakeTable(opened.store, schema, name, opened)

    def open_flags(self, run: Run) -> LakeTable:
        return self.open(FLAGS, flag_schema(run.snapshot.schema, run.spec.roles))


def commit_day(run: Run, books: RunBooks, commits: Mapping[str, int], tables: OutputTables) -> int:
    """Replace the day by the shards in the books; returns the version of the table of flags.

    `commits` is `tables.count_commits` from before the run's snapshot. Raises `Refusal` for a table
    whose day another run has committed since, so that all tables are of one run.
    """
    facts = {name: str(count) for name, count in books.counts.to_document().items()}
    facts |= {"bundle": run.bundle.id, "threshold": run.threshold.id}
    facts["champion"] = str(run.champion.number)
    if run.snapshot.version is not None:
        facts["input_version"] = str(run.snapshot.version)
    if run.key_id:
        facts["hmac_key"] = run.key_id
    commit = Commit(run.day, run.run_id, run.snapshot.day_digest, facts)
    flags = tables.open_flags(run)
    # Where it is committed since, by another command of this run, nothing is left to do.
    again = commits[FLAGS] > 0 and flags.is_run_committed(run.day, run.run_id)
    beside = {}
    for side, shards in _list_sides(run, books, commits, tables):
        version = side.commit(commit, shards, commits[side.name])
        named = flags.find_beside(run.day, side.name) if again else None
        # What the flags name already is kept, if it is the same: then they need no other commit.
        same = named is not None and side.has_at(named, run.day, shards)
        beside[side.name] = named if named is not None and same else version
    return flags.commit(replace(commit, beside=beside), books.shards(FLAGS), commits[FLAGS])


def _list_sides(
    run: Run, books: RunBooks, commits: Mapping[str, int], tables: OutputTables
) -> Iterator[tuple[LakeTable, list[Shard]]]:
    """The tables beside the flags, with their shards. Scores of an earlier spec are replaced by
    none, or they would stand beside flags of another run."""
    quarantine = tables.open(QUARANTINE, QUARANTINE_SCHEMA)
    yield quarantine, [*books.shards(QUARANTINE), *_write_rejected(run)]
    if run.spec.output.scores == "all":
        schema = score_schema(run.snapshot.schema, run.spec.roles)
        yield tables.open(SCORES, schema), [*books.shards(SCORES)]
    elif commits[SCORES]:
        known = read_schema(run.output.child(SCORES))
        assert known is not None  # as it has commits
        yield tables.open(SCORES, known.remove(known.get_field_index("day"))), []


def _write_rejected(run: Run) -> list[Shard]:
    """A quarantine shard with the files that the snapshot rejected; none where it rejected none."""
    if not run.snapshot.rejected:
        return []
    rows = [
        {
            "file": file.key,
            "row": None,
            "column": "",
            "rule": file.rule,
            "message": file.message,
            "run_id": run.run_id,
        }
        for file in run.snapshot.rejected
    ]
    table = pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
    # By its content: a committed file is never written over.
    digest = hashlib.sha256(repr(rows).encode()).hexdigest()[:8]
    key = shard_key(run.day, f"{run.run_id}-files-{digest}")
    return [write_shard(run.output.child(QUARANTINE), key, table)]
