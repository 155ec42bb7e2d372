"""A Delta table of the lake: one transaction of a run replaces one day.

The transaction itself decides who may commit. Each commit of a day writes three application
transactions with the day's counter, one higher than before: `day=D`, `day=D/run=R` and
`day=D/snapshot=S`. A run remembers the counter that it saw when it began, and commits only if the
counter is still the same. delta-rs writes the log entry with a conditional PUT for exactly the
version after the one that was read (`max_commit_retries=0`), so nothing can come in between.

One commit decides for a day of several tables: that of the flags, which comes last. It names the
versions of the tables beside it, as `day=D/quarantine`; `read_day` reads them so.
"""

import json
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    Schema,
    Transaction,
)
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction
from tenacity import RetryCallState, retry, stop_after_attempt, wait_random_exponential

from cluster.lake.days import day_order
from cluster.lake.output.shard import Shard, shard_key
from cluster.lake.storage.delta import (
    OpenedTable,
    log_key,
    open_table,
    open_version,
    read_history,
    read_key,
    read_transaction,
    refuse_features,
)
from cluster.lake.storage.retries import TRIES
from cluster.lake.storage.store import Store
from models.refusal import Refusal, SchemaMismatch, may_pass

# 30 tries with random waits of up to 2 s. Every round has one winner: 20 threads that committed 20
# days at the same moment were done in 9 s on moto and two cores.
_TRIES = 30
# Each hundredth version has a checkpoint: the default of `delta.checkpointInterval`.
_CHECKPOINT = 100
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
    beside: Mapping[str, int] = field(default_factory=dict)  # versions of other tables, by name


@dataclass(frozen=True)
class LoggedCommit:
    version: int
    timestamp: int  # milliseconds since 1970
    commit: Commit  # its facts may have entries of delta-rs beside the run's


class LakeTable:
    """A Delta table, partitioned by `day`, in the folder of a store."""

    def __init__(
        self, store: Store, schema: pa.Schema, name: str, opened: OpenedTable | None = None
    ) -> None:
        """`schema` is the schema of the shards: without `day`, which is in their path. `opened` is
        the table in this folder, where several days share it."""
        if "day" in schema.names:
            raise ValueError("expected the schema of the shards, which have no column 'day'")
        self.store, self.name = store, name
        self._opened = opened or OpenedTable(store)
        self.schema = schema.append(pa.field("day", pa.string()))

    def is_run_committed(self, day: str, run_id: str) -> bool:
        """Whether the day's last commit is of this run."""
        return is_last(self._load(), day, f"run={run_id}")

    def version(self) -> int | None:
        """The table's version; None before the first commit."""
        table = self._load()
        return None if table is None else table.version()

    def commit(self, commit: Commit, shards: Iterable[Shard], seen: int | None) -> int:
        """Replace the day by these shards, if only by none, in one transaction.

        Returns the table's version. Makes the table where there is none. Waits for commits of other
        days. Does nothing where the day's last commit is of this very run, unless it was there
        before and names other files. Raises `DayTakenMeanwhile` where the day's counter differs
        from `seen`; with None, replaces any earlier commit of another run.
        """
        day, run_id = commit.day, commit.run_id
        adds = _adds(day, shards)
        keys = {add.path for add in adds}

        @retry(
            retry=_is_worth_another,
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_attempt(_TRIES),
            reraise=True,
        )
        def attempt() -> int:
            with self._opened.lock:  # what is read stays so until it is written
                table = self._load() or self._create()
                counter, present = count_commits(table, day), dict[str, int]()
                if counter and is_last(table, day, f"run={run_id}"):
                    present = select_day(list_files(table), self.store, day)
                    same = present.keys() == keys and _names(table, commit)
                    if same or counter != seen:
                        return table.version()
                if seen is not None and counter != seen:
                    raise DayTakenMeanwhile(self._taken(table, day, run_id))
                made = table.version() + 1  # no other version can come in between
                try:
                    self._write(table, commit, adds, present, counter + 1)
                except Exception:
                    self._opened.forget()
                    raise
                self._opened.flush(made)
                if (made + 1) % _CHECKPOINT == 0:
                    table.cleanup_metadata()  # now that the checkpoint in their place lasts
                return made

        return attempt()

    def _write(
        self,
        table: DeltaTable,
        commit: Commit,
        adds: Sequence[AddAction],
        present: Mapping[str, int],
        counter: int,
    ) -> None:
        day = commit.day
        run, snapshot = f"run={commit.run_id}", f"snapshot={commit.snapshot}"
        apps = (f"day={day}", f"day={day}/{run}", f"day={day}/{snapshot}")
        versions = {f"{name}_version": str(version) for name, version in commit.beside.items()}
        facts = {"day": day, "run_id": commit.run_id, "snapshot": commit.snapshot}
        # A transaction may not remove and add one file: what stays is in neither list.
        keys = {add.path for add in adds}
        stays = bool(keys & present.keys())
        actions: list[AddAction | RemoveAction] = [one for one in adds if one.path not in present]
        if stays:
            actions += _removes(day, present, keys)
        table.create_write_transaction(
            actions,
            "append" if stays else "overwrite",
            Schema.from_arrow(self.schema),
            partition_by=["day"],
            partition_filters=None if stays else [("day", "=", day)],
            commit_properties=CommitProperties(
                custom_metadata={**commit.facts, **versions, **facts},
                max_commit_retries=0,
                app_transactions=[
                    *(Transaction(app, counter) for app in apps),
                    *(Transaction(f"day={day}/{name}", v) for name, v in commit.beside.items()),
                ],
            ),
            post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
        )

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
        return list_commits(self._load())

    def find_beside(self, day: str, name: str) -> int | None:
        """The version of another table that the day's commit names; None without one."""
        table = self._load()
        return None if table is None else find_beside(table, day, name)

    def has_at(self, version: int, day: str, shards: Iterable[Shard]) -> bool:
        """Whether the day consisted of these shards at a version of the table."""
        table = open_version(self.store, version)
        keys = {shard.key for shard in shards}
        return table is not None and select_day(list_files(table), self.store, day).keys() == keys

    def _load(self) -> DeltaTable | None:
        """The table as it is. Its version lasts: who made it may have been killed before that."""
        table = self._opened.refresh()
        if table is not None:
            self._check_schema(table)
            self._opened.flush(table.version())
        return table

    def _create(self) -> DeltaTable:
        """Make the table, unless another run has just made it.

        Its first entry is written by the store, whole or not at all: after a loss of power, an
        empty one would be no table and no place for one.
        """
        schema = Schema.from_arrow(self.schema)
        with tempfile.TemporaryDirectory() as folder:
            DeltaTable.create(folder, schema, mode="error", partition_by=["day"], name=self.name)
            first = Path(folder, log_key(0)).read_bytes()
        self.store.create(log_key(0), first)
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
        of_day = (e.commit.run_id for e in list_commits(table) if e.commit.day == day)
        winner = next(of_day, "unknown")
        return (
            f"day {day} of table {self.name} was committed by run {winner} after run {run_id} "
            "began: nothing was committed by this run. If its result is wanted, run it again"
        )


def count_commits(table: DeltaTable | None, day: str) -> int:
    """How often the day was committed so far. `LakeTable.commit` takes it as `seen`."""
    if table is None:
        return 0
    return read_transaction(table, f"day={day}") or 0


def has_day(table: DeltaTable | None, day: str) -> bool:
    """Whether the day was ever committed to the table."""
    return count_commits(table, day) > 0


def is_last(table: DeltaTable | None, day: str, what: str) -> bool:
    """Whether the day's last commit is `run=R`, or `snapshot=S`."""
    if table is None:
        return False
    version = read_transaction(table, f"day={day}/{what}")
    return version is not None and version == count_commits(table, day)


def find_beside(table: DeltaTable, day: str, name: str) -> int | None:
    """The version of another table that the day's last commit names; None without one."""
    return read_transaction(table, f"day={day}/{name}")


def list_files(table: DeltaTable | None) -> pa.Table:
    """The files of the table, as its log has them."""
    return pa.table(table.get_add_actions(flatten=True)) if table else pa.table({})


def select_day(files: pa.Table, store: Store, day: str) -> dict[str, int]:
    """The sizes in bytes, by key, of those of a table's `list_files` that are of the day."""
    if not files.num_rows:
        return {}
    named = files.filter(pc.field("partition.day") == day).select(["path", "size_bytes"])
    paths, sizes = (column.to_pylist() for column in named.columns)
    return {read_key(store, path): size for path, size in zip(paths, sizes, strict=True)}


def list_days(table: DeltaTable) -> list[str]:
    """The days that were committed, with and without rows, as far as the log goes back."""
    found = {partition["day"] for partition in table.partitions()}
    return sorted(found | {one.commit.day for one in list_commits(table)}, key=day_order)


def was_committed(table: DeltaTable, day: str) -> bool:
    """Whether a run has ever committed the day."""
    return count_commits(table, day) > 0 or day in list_days(table)


def read_schema(store: Store) -> pa.Schema | None:
    """The schema of the table in this folder; None where there is none."""
    table = open_table(store)
    return None if table is None else pa.schema(table.schema().to_arrow())


def read_commits(store: Store) -> tuple[LoggedCommit, ...]:
    """`LakeTable.read_commits` of the table in this folder, whatever its schema is."""
    return list_commits(open_table(store))


def read_rows(
    table: DeltaTable, store: Store, days: Collection[str] | None = None
) -> pa.RecordBatchReader:
    """The rows of the table, or of some days, with `day` as the last column; to be read once.

    The store opens each file when its turn comes, so no link leads out of it. It is read in the
    thread that asks for its rows: a thread of Arrow that calls Python stands still for ever where
    Python waits for it, as it does when a reading is given up. Raises `Refusal` for a table with
    features that change what its files hold.
    """
    refuse_features(store, table)
    schema = pa.schema(table.schema().to_arrow())
    files = pa.table(table.get_add_actions(flatten=True))
    own = files.column("partition.day").to_pylist() if files.num_rows else []
    named = zip(files.column("path").to_pylist(), own, strict=True)
    keys = [(read_key(store, path), day) for path, day in named if days is None or day in days]
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


def list_commits(table: DeltaTable | None) -> tuple[LoggedCommit, ...]:
    """The commits of days that the table's log still has, newest first."""
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
        for entry in (read_history(table) if table else ())
        if "day" in entry
    )


def _is_worth_another(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, OSError):  # whether the PUT took place, only reading the log again tells
        return may_pass(error) and state.attempt_number < TRIES
    if type(error) is DeltaError:  # so it says that an answer broke off while it wrote
        return state.attempt_number < TRIES
    return isinstance(error, CommitFailedError)


def _names(table: DeltaTable, commit: Commit) -> bool:
    beside = commit.beside.items()
    return all(find_beside(table, commit.day, name) == version for name, version in beside)


def _removes(day: str, present: Mapping[str, int], keys: Collection[str]) -> list[RemoveAction]:
    now = int(time.time() * 1000)
    partition: dict[str, str | None] = {"day": day}
    gone = ((key, size) for key, size in present.items() if key not in keys)
    return [RemoveAction(key, True, now, size, partition) for key, size in gone]


def _adds(day: str, shards: Iterable[Shard]) -> list[AddAction]:
    """The commit's files. They share equal parts: a million took 4.3 GiB without, and take 3.6."""
    folder = shard_key(day, "").rsplit("/", 1)[0]
    partition, now = {"day": day}, int(time.time() * 1000)
    stats: dict[int, str] = {}  # by rows
    adds: list[AddAction] = []
    for one in shards:
        if one.key.rsplit("/", 1)[0] != folder:
            raise Refusal(f"shard {one.key} of day {day}: expected it in {folder}/")
        statistics = stats.setdefault(one.rows, json.dumps({"numRecords": one.rows}))
        # The path as it is in the store: delta-rs encodes it for the log.
        adds.append(AddAction(one.key, one.size, partition, now, True, statistics))
    return adds
