"""Opening the Delta table in the folder of a store, and what its log says of its files."""

import threading
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from cluster.lake.storage.retries import retry_reading
from cluster.lake.storage.store import Store, find_fault, print_name
from models.refusal import Refusal

_LOG = "_delta_log"

# Features that change nothing in how the files of a version are read. deltalake leaves out deletion
# vectors and mapped columns without a word, where one only asks it for the files.
_READABLE = {
    "timestampNtz",
    "typeWidening",  # files of two widths have a common type, as any files
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
_UNDO = {
    "deletionVectors": "rewrite the files without them: `REORG TABLE … APPLY (PURGE)`, then "
    "`ALTER TABLE … DROP FEATURE deletionVectors`",
    "columnMapping": "copy the table into one without it",
}


def open_table(store: Store) -> DeltaTable | None:
    """The table in this folder; None if there is none.

    Raises `Refusal` where a link stands in its log, whose files deltalake opens by itself.
    """
    store.refuse_links(_LOG)
    try:
        return _open(store)
    except TableNotFoundError:
        return None


class OpenedTable:
    """The table in a folder as it is each time that it is asked for. It is opened once, and then
    brought up to date: after 30 commits, 2 ms in place of 18."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._table: DeltaTable | None = None
        self._options: dict[str, str] = {}  # it was opened with these
        self._lasting = -1  # version that was flushed
        self.lock = threading.RLock()  # of who reads something and writes by it

    def refresh(self) -> DeltaTable | None:
        """The table as it is now; None if there is none. Raises as `open_table` does."""
        with self.lock:
            known, options = self._table, self.store.delta_options
            same = options == self._options  # credentials expire
            if known and same and self.store.exists(log_key(known.version())):
                self.store.refuse_links(_LOG)
                _update(known)
            else:  # perhaps another, in the place of the first
                self._table, self._options = open_table(self.store), options
            return self._table

    def forget(self) -> None:
        """Open it anew next time, as after a write that failed half-way."""
        self._table = None

    def flush(self, version: int) -> None:
        """`flush_version`, once for a version."""
        if version != self._lasting:
            flush_version(self.store, version)
            self._lasting = version


@retry_reading
def _update(table: DeltaTable) -> None:
    table.update_incremental()


@retry_reading
def _open(store: Store) -> DeltaTable:
    return DeltaTable(store.delta_uri, storage_options=store.delta_options)


@retry_reading
def read_history(table: DeltaTable) -> list[dict[str, Any]]:
    """The commits of the table, newest first, as its log describes them."""
    return table.history()


@retry_reading
def read_transaction(table: DeltaTable, app: str) -> int | None:
    """The version of the application transaction in the table's log."""
    return table.transaction_version(app)


def open_version(store: Store, version: int) -> DeltaTable | None:
    """The table as it was at a version; None where its log reaches back no further."""
    table = open_table(store)
    try:
        if table is not None and table.version() != version:
            table.load_as_version(version)
    except DeltaError:
        return None
    return table


def log_key(version: int) -> str:
    """The key of a version's entry in the log of a table."""
    return f"{_LOG}/{version:020}.json"


def flush_version(store: Store, version: int) -> None:
    """Make a version of the table last through a loss of power, with the checkpoint that it may
    have: deltalake leaves both to the system."""
    checkpoint = log_key(version).replace(".json", ".checkpoint.parquet")
    store.flush(log_key(version), checkpoint, f"{_LOG}/_last_checkpoint")


def refuse_features(store: Store, table: DeltaTable) -> None:
    """Raise `Refusal` for a feature without which the rows of a file are not the table's."""
    named = set(table.protocol().reader_features or ())
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode == "none":
        named.discard("columnMapping")
    else:
        named.add("columnMapping")
    for name in sorted(named - _READABLE):
        raise feature_error(store, name)


def feature_error(store: Store, name: str) -> Refusal:
    undo = _UNDO.get(name, "copy the rows into a table without it")
    return Refusal(
        f"the Delta table {store.uri} uses the feature {name!r}, with which its files hold other "
        f"rows or names than the table: expected a table without it; {undo}"
    )


def read_key(store: Store, path: str) -> str:
    """The key of a file as the log has it. Raises `Refusal` for one outside of the table."""
    key = unquote(path)
    if fault := find_fault(key):
        raise Refusal(
            f"the log of the Delta table {store.uri} names the file {print_name(path)!r} ({fault}):"
            " expected files in the table's folder; a shallow clone has them elsewhere: copy the "
            "rows into a table of its own"
        )
    return key
