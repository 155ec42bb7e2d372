"""The commit of a day: side tables first, then the flags, whose commit is the one that counts."""

from collections.abc import Mapping

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
from cluster.lake.output.table import Commit, LakeTable, read_commit_counter
from cluster.lake.storage.store import Store
from jobs.scoring.books import RunBooks
from jobs.scoring.run import Run
from jobs.spec.spec import Spec


def count_commits(spec: Spec, output: Store, day: str) -> dict[str, int]:
    """How often the day was committed so far, for each table that a run of the spec commits."""
    names = [QUARANTINE, FLAGS, *([SCORES] if spec.output.scores == "all" else [])]
    return {name: read_commit_counter(output.child(name), day) for name in names}


def open_flags(run: Run) -> LakeTable:
    """The table of flags."""
    schema = flag_schema(run.snapshot.schema, run.spec.roles)
    return LakeTable(run.output.child(FLAGS), schema, FLAGS)


def commit_day(run: Run, books: RunBooks, commits: Mapping[str, int]) -> int:
    """Replace the day by the shards in the books; returns the version of the table of flags.

    `commits` is `count_commits` from before the run's snapshot. Raises `Refusal` for a table whose
    day another run has committed since, so that all tables are of one run.
    """
    facts = {"bundle": run.bundle.id, "threshold": run.threshold.id, "rows": str(books.counts.rows)}
    facts["champion"] = str(run.champion.number)
    if run.snapshot.version is not None:
        facts["input_version"] = str(run.snapshot.version)
    if run.key_id:
        facts["hmac_key"] = run.key_id
    quarantine = [*books.shards(QUARANTINE), *_write_rejected(run)]
    sides = [(QUARANTINE, QUARANTINE_SCHEMA, quarantine)]
    if run.spec.output.scores == "all":
        schema = score_schema(run.snapshot.schema, run.spec.roles)
        sides.append((SCORES, schema, [*books.shards(SCORES)]))
    commit = Commit(run.day, run.run_id, run.snapshot.day_digest, facts)
    for name, schema, shards in sides:
        side = LakeTable(run.output.child(name), schema, name)
        side.commit(commit, shards, commits[name])
    return open_flags(run).commit(commit, books.shards(FLAGS), commits[FLAGS])


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
    key = shard_key(run.day, f"{run.run_id}-files-0")
    return [write_shard(run.output.child(QUARANTINE), key, table)]
