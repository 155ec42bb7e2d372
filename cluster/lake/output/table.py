"""A Delta table of the lake: one transaction of a run replaces one day.

The transaction itself decides who may commit. Each commit of a day writes three application
transactions with the day's counter, one higher than before: `day=D`, `day=D/run=R` and
`day=D/snapshot=S`. A run remembers the counter that it saw when it began, and commits only if the
counter is still the same. delta-rs writes the log entry with a conditional PUT for exactly the
version after the one that was read (`max_commit_retries=0`), so nothing can come in between.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction
from tenacity import RetryCallState, retry, stop_after_attempt, wait_random_exponential

from cluster.lake.days import day_order
from cluster.lake.output.shard import Shard, shard_key
from cluster.lake.storage.delta import open_table, read_key, refuse_features
from cluster.lake.storage.store import Store
from models.refusal import Refusal, SchemaMismatch

# 30 tries with random waits of up to 2 s. Every round has one winner: 20 threads that committed 20
# days at the same moment were done in 9 s on moto and two cores.
_TRIES = 30
# Tries after errors of the store, beside those of its client: a reset connection leaves it open
# whether a conditional PUT succeeded, and only reading the table again tells.
_STORE_TRIES = 5
_RECENT_DAYS = 7  # a week, so that it has a weekend


class DayTakenMeanwhile(Refusal):
    """Another run has committed the day since this run began."""


@dataclass(frozen=True)
class Commit:
    """A run's claim to a day."""

    day: str
    run_id: str
    snapshot: str  # digest of the day's own input files
    facts: Mapping[str, str] = field(default_factory=dict)  # kept in the log with it


@dataclass(frozen=True)
class LoggedCommit:
    version: int
    timestamp: int  # milliseconds since 1970
    commit: Commit  # its facts may have entries of delta-rs beside the run's


class LakeTable:
    """A Delta table, partitioned by `day`, in the folder of a store."""

    def __init__(self, store: Store, schema: pa.Schema, name: str) -> None:
        """`schema` is the schema of the shards: without `day`, which is in their path."""
        if "day" in schema.names:
            raise ValueError("expected the schema of the shards, which have no column 'day'")
        self.store, self.name = store, name
        self.schema = schema.append(pa.field("day", pa.string()))

    def is_run_committed(self, day: str, run_id: str) -> bool:
        """Whether the day's last commit is of this run."""
        return _is_last(self._load(), day, f"run={run_id}")

    def is_committed(self, day: str, snapshot_digest: str) -> bool:
        """Whether the day's last commit was made from this snapshot."""
        return _is_last(self._load(), day, f"snapshot={snapshot_digest}")

    def version(self) -> int | None:
        """The table's version; None before the first commit."""
        table = self._load()
        return None if table is None else table.version()

    def commit(self, commit: Commit, shards: Iterable[Shard], seen: int | None) -> int:
        """Replace the day by these shards, if only by none, in one transaction.

        Returns the table's version. Makes the table where there is none. Waits for commits of other
        days. Does nothing where the day's last commit is of this very run. Raises
        `DayTakenMeanwhile` where the day's counter differs from `seen`; with None, replaces any
        earlier commit.
        """
        day, run_id = commit.day, commit.run_id
        adds = _adds(day, shards)

        @retry(
            retry=_is_worth_another,
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_attempt(_TRIES),
            reraise=True,
        )
        def attempt() -> int:
            table = self._load() or self._create()
            if _is_last(table, day, f"run={run_id}"):
                return table.version()
            counter = _counter(table, day)
            if seen is not None and counter != seen:
                raise DayTakenMeanwhile(self._taken(table, day, run_id))
            read = table.version()
            apps = (
                f"day={day}",
                f"day={day}/run={run_id}",
                f"day={day}/snapshot={commit.snapshot}",
            )
            facts = {**commit.facts, "day": day, "run_id": run_id, "snapshot": commit.snapshot}
            table.create_write_transaction(
                adds,
                "overwrite",
                Schema.from_arrow(self.schema),
                partition_by=["day"],
                partition_filters=[("day", "=", day)],
                commit_properties=CommitProperties(
                    custom_metadata=facts,
                    max_commit_retries=0,
                    app_transactions=[Transaction(app, counter + 1) for app in apps],
                ),
            )
            return read + 1  # no other version can come in between

        return attempt()

    def rows(self, day: str) -> int:
        """Committed rows of the day, from the log alone."""
        table = self._load()
        if table is None:
            return 0
        files = pa.table(table.get_add_actions(flatten=True))
        if not files.num_rows:
            return 0
        of_day = files.filter(pc.field("partition.day") == day)
        return sum(of_day.column("num_records").to_pylist())

    def recent_rows(self, day: str, days: int = _RECENT_DAYS) -> list[int]:
        """The fact `rows` of the commits of the last days before this one, oldest first."""
        last: dict[str, int] = {}
        for entry in self.read_commits():
            if "rows" in entry.commit.facts:
                last.setdefault(entry.commit.day, int(entry.commit.facts["rows"]))

        def before(one: str) -> bool:
            return day_order(one) < day_order(day)

        return [last[d] for d in sorted(filter(before, last), key=day_order)[-days:]]

    def read_commits(self) -> tuple[LoggedCommit, ...]:
        """The commits of days, newest first."""
        return _commits(self._load())

    def vacuum(self, retention_hours: int | None = None, dry_run: bool = True) -> list[str]:
        """Remove files that no version of the last hours (default: a week) refers to.

        These are the files of replaced days and of attempts that died. `retention_hours` must be
        longer than the longest run: otherwise the shards of a run in progress are removed too.
        """
        self.store.refuse_links()
        table = self._load()
        if table is None:
            return []
        keys = table.vacuum(
            retention_hours,
            dry_run=True,
            enforce_retention_duration=retention_hours is None,
            full=True,
        )
        if not dry_run:
            for key in keys:  # by the store, which follows no link that has come meanwhile
                self.store.delete(key)
        return keys

    def _load(self) -> DeltaTable | None:
        table = open_table(self.store)
        if table is not None:
            self._check_schema(table)
        return table

    def _create(self) -> DeltaTable:
        try:
            DeltaTable.create(
                self.store.delta_uri,
                Schema.from_arrow(self.schema),
                mode="error",
                partition_by=["day"],
                name=self.name,
                storage_options=self.store.delta_options,
            )
        except DeltaError:
            table = self._load()
            if table is not None:  # another run has just created it
                return table
            raise
        table = self._load()
        assert table is not None
        return table

    def _check_schema(self, table: DeltaTable) -> None:
        found = {field.name: str(field.type) for field in table.schema().fields}
        wanted = {field.name: str(field.type) for field in Schema.from_arrow(self.schema).fields}
        if found != wanted:
            names = [n for n in {**wanted, **found} if wanted.get(n) != found.get(n)]
            differences = "; ".join(
                f"column {n!r}: the table has {found.get(n, 'none')}, "
                f"this spec writes {wanted.get(n, 'none')}"
                for n in names
            )
            raise SchemaMismatch(
                f"table {self.name} at {self.store.uri} has another schema: {differences}. "
                "A table's schema never changes: name another output, or keep the old columns"
            )

    def _taken(self, table: DeltaTable, day: str, run_id: str) -> str:
        of_day = (e.commit.run_id for e in _commits(table) if e.commit.day == day)
        winner = next(of_day, "unknown")
        return (
            f"day {day} of table {self.name} was committed by run {winner} after run {run_id} "
            "began: nothing was committed by this run. If its result is wanted, run it again"
        )


def read_commit_counter(store: Store, day: str) -> int:
    """How often the day was committed so far to the table in this folder, whatever its schema.

    `LakeTable.commit` takes it as `seen`.
    """
    return _counter(open_table(store), day)


def is_day_committed(store: Store, day: str, snapshot_digest: str) -> bool:
    """`LakeTable.is_committed` of the table in this folder, whatever its schema is."""
    return _is_last(open_table(store), day, f"snapshot={snapshot_digest}")


def list_days(table: DeltaTable) -> list[str]:
    """The days that were committed, with and without rows, as far as the log goes back."""
    found = {partition["day"] for partition in table.partitions()}
    return sorted(found | {one.commit.day for one in _commits(table)}, key=day_order)


def was_committed(table: DeltaTable, day: str) -> bool:
    """Whether a run has ever committed the day."""
    return _counter(table, day) > 0 or day in list_days(table)


def read_schema(store: Store) -> pa.Schema | None:
    """The schema of the table in this folder; None where there is none."""
    table = open_table(store)
    return None if table is None else pa.schema(table.schema().to_arrow())


def read_commits(store: Store) -> tuple[LoggedCommit, ...]:
    """`LakeTable.read_commits` of the table in this folder, whatever its schema is."""
    return _commits(open_table(store))


def read_rows(table: DeltaTable, store: Store, day: str | None = None) -> pa.RecordBatchReader:
    """The rows of the table, or of one day, with `day` as the last column; to be read once.

    The store opens each file when its turn comes, so no link leads out of it. It is read in the
    thread that asks for its rows: a thread of Arrow that calls Python stands still for ever where
    Python waits for it, as it does when a reading is given up. Raises `Refusal` for a table with
    features that change what its files hold.
    """
    refuse_features(store, table)
    schema = pa.schema(table.schema().to_arrow())
    files = pa.table(table.get_add_actions(flatten=True))
    days = files.column("partition.day").to_pylist() if files.num_rows else []
    named = zip(files.column("path").to_pylist(), days, strict=True)
    keys = [(read_key(store, path), own) for path, own in named if day in (None, own)]
    return pa.RecordBatchReader.from_batches(schema, _read_files(store, keys, schema))


def _read_files(
    store: Store, keys: Iterable[tuple[str, str]], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    names = [name for name in schema.names if name != "day"]
    for key, day in keys:
        with store.open_parquet(key) as file, pq.ParquetFile(file) as parquet:
            file.prefetch([(0, file.length)])  # one request for all columns of a shard
            for batch in parquet.iter_batches(columns=names, use_threads=False):
                days = pa.repeat(pa.scalar(day, schema.field("day").type), batch.num_rows)
                whole = batch.select(names).append_column("day", days)
                yield whole.select(schema.names).cast(schema)


def _commits(table: DeltaTable | None) -> tuple[LoggedCommit, ...]:
    return tuple(
        LoggedCommit(
            version=entry["version"],
            timestamp=entry["timestamp"],
            commit=Commit(
                day=entry["day"],
                run_id=entry["run_id"],
                snapshot=entry["snapshot"],
                facts={name: value for name, value in entry.items() if isinstance(value, str)},
            ),
        )
        for entry in (table.history() if table else ())
        if "day" in entry
    )


def _counter(table: DeltaTable | None, day: str) -> int:
    if table is None:
        return 0
    return table.transaction_version(f"day={day}") or 0


def _is_worth_another(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, OSError):
        return state.attempt_number < _STORE_TRIES
    return isinstance(error, CommitFailedError)


def _is_last(table: DeltaTable | None, day: str, what: str) -> bool:
    if table is None:
        return False
    version = table.transaction_version(f"day={day}/{what}")
    return version is not None and version == _counter(table, day)


def _adds(day: str, shards: Iterable[Shard]) -> list[AddAction | RemoveAction]:
    """The commit's files. They share equal parts: a million took 4.3 GiB without, and take 3.6."""
    folder = shard_key(day, "").rsplit("/", 1)[0]
    partition, now = {"day": day}, int(time.time() * 1000)
    stats: dict[int, str] = {}  # by rows
    adds: list[AddAction | RemoveAction] = []
    for one in shards:
        if one.key.rsplit("/", 1)[0] != folder:
            raise Refusal(f"shard {one.key} of day {day}: expected it in {folder}/")
        statistics = stats.setdefault(one.rows, json.dumps({"numRecords": one.rows}))
        # The path as it is in the store: delta-rs encodes it for the log.
        adds.append(AddAction(one.key, one.size, partition, now, True, statistics))
    return adds
