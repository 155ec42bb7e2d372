"""Tables as inputs: the files of a Delta table come from its log, other tables are refused.

Readers of files see every file in a table's folder, also the ones whose rows were deleted, replaced
or compacted. Which files count, and which values their partition columns have, only the table's own
log says.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote

import pyarrow as pa
from deltalake.exceptions import DeltaError

from cluster.lake.days import NULL
from cluster.lake.storage.delta import feature_error, open_table, read_key, refuse_features
from cluster.lake.storage.opening import find_place, open_store
from cluster.lake.storage.store import Store, print_name
from models.refusal import Refusal

_OUTPUT = "output"  # of a watch: it holds tables, and other files
# A file of each kind of table, from the table's folder on.
_KINDS = {
    "Delta": re.compile(r"(?:(.+)/)?_delta_log/\d{20}\.(?:json|checkpoint\.[^/]*)"),
    "Iceberg": re.compile(r"(?:(.+)/)?metadata/[^/]+\.metadata\.json"),
    "Hudi": re.compile(r"(?:(.+)/)?\.hoodie/.+"),
    _OUTPUT: re.compile(r"(?:(.+)/)?_watch\.json"),
}
_FOLDERS = {"_delta_log": "Delta", "metadata": "Iceberg", ".hoodie": "Hudi"}


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """A file of a table as the log has it."""

    key: str  # relative to the input's store
    folders: str  # its partition values as folders: "region=eu/day=2026-11-20/"


@dataclass(frozen=True)
class TableVersion:
    """The files of a Delta table at one version."""

    version: int
    columns: tuple[str, ...]  # that it is partitioned by
    files: tuple[LoggedFile, ...]
    schema: pa.Schema  # of its rows: a column that an older file lacks is null in it


def read_table(store: Store, root: str) -> TableVersion | None:
    """The newest version of the Delta table at `root`; None where files are no table's.

    Raises `Refusal` for a table that cannot be read as one, and for a part of a table.
    """
    kind = _find_kind(store, root)
    if kind is None:
        for uri, found in _find_above(store, root):
            raise Refusal(
                f"the input lies in the {found} table {uri}: expected the whole table, since its "
                "log says which files count; name the table, and choose rows with input.partition, "
                "days or a filter"
            )
        return None
    place = store.child(root) if root else store
    if kind != "Delta":
        raise _unreadable(place.uri, kind)
    return _read_delta(place, root)


def refuse_tables(keys: Iterable[str], store: Store) -> None:
    """Raise `Refusal` where the keys show a table, or the output of a watch, in a folder of the
    input."""
    for key in keys:
        for kind, pattern in _KINDS.items():
            if found := pattern.fullmatch(key):
                raise _inner(f"{store.uri}/{found[1]}" if found[1] else store.uri, kind)


def refuse_table_folder(store: Store, folder: str, name: str) -> None:
    """Raise `Refusal` where the folder `name` in a folder of the input makes that a table."""
    if name in _FOLDERS and (kind := _find_kind(store, folder)):
        raise _inner(f"{store.uri}/{folder}", kind)


def _inner(uri: str, kind: str) -> Refusal:
    if kind == _OUTPUT:
        return Refusal(
            f"{print_name(uri)} in the input is the output of a watch: its flags would be read as "
            "rows. Name another output.uri for that watch, or an input.uri beside it"
        )
    if kind != "Delta":
        return _unreadable(print_name(uri), kind)
    return Refusal(
        f"{print_name(uri)} in the input is a Delta table: expected a table by itself, or files "
        "that belong to none; name this folder as the input"
    )


def _unreadable(uri: str, kind: str) -> Refusal:
    return Refusal(
        f"{uri} is an {kind} table, or was one: expected Parquet files or a Delta table. Read as "
        "files it would have rows that were deleted; export the rows to a folder of Parquet files, "
        "or to a Delta table, and name that"
        if kind == "Iceberg"
        else f"{uri} is a {kind} table: expected Parquet files or a Delta table. Read as files it "
        "would have rows that were replaced; export the rows to a folder of Parquet files, or to a "
        "Delta table, and name that"
    )


def _find_kind(store: Store, root: str) -> str | None:
    for folder, kind in _FOLDERS.items():
        there = store.survey(f"{root}/{folder}" if root else folder, deep=False)
        names = [one.key.rpartition("/")[2] for one in there.objects]
        if kind == "Hudi" and (there.folders or names):
            return kind
        if any(_KINDS[kind].fullmatch(f"{folder}/{name}") for name in names):
            return kind
    return None


def _find_above(store: Store, root: str) -> Iterator[tuple[str, str]]:
    """Tables in the folders above the input, with their kinds, also where a link leads to it."""
    uri = find_place(f"{store.uri}/{root}" if root else store.uri)
    while uri.strip("/") and not re.fullmatch("s3://[^/]*", uri):
        uri, _, _ = uri.rpartition("/")
        above = open_store(uri or "/")
        own = uri.rpartition("/")[2]
        # Whoever may not list a folder above the input owns no table there.
        with suppress(Refusal, PermissionError):
            if kind := _find_kind(above, own if own.endswith(".parquet") else ""):
                yield uri, kind


def _read_delta(store: Store, root: str) -> TableVersion:
    try:
        table = open_table(store)
    except DeltaError as error:
        # Of deltalake's texts only the names of features are shown: others hold values of rows.
        found = re.search(r"[Ff]eature '?(\w+)|[Cc]olumn (mapping)", str(error))
        name = found and (found[1] or "columnMapping")
        raise feature_error(store, name) if name else _damaged(store) from None
    if table is None:
        raise _damaged(store)
    refuse_features(store, table)
    columns = tuple(table.metadata().partition_columns)
    try:
        actions = pa.table(table.get_add_actions(flatten=True))
    except DeltaError:
        raise _damaged(store) from None
    texts = [actions[f"partition.{name}"].cast(pa.string()) for name in columns if len(actions)]
    folders = [_print_folders(columns, values) for values in zip(*texts, strict=True)]
    paths, prefix = actions["path"].to_pylist(), f"{root}/" if root else ""
    files = zip(paths, folders or [""] * len(paths), strict=True)
    return TableVersion(
        table.version(),
        columns,
        tuple(LoggedFile(prefix + read_key(store, path), own) for path, own in files),
        pa.schema(table.schema().to_arrow()),
    )


def _damaged(store: Store) -> Refusal:
    return Refusal(
        f"the log of the Delta table {store.uri} cannot be read: expected every version since the "
        "last checkpoint, whole; see what another reader of Delta says, or restore the log"
    )


def _print_folders(columns: tuple[str, ...], values: tuple[pa.Scalar, ...]) -> str:
    texts = ((name, value.as_py()) for name, value in zip(columns, values, strict=True))
    return "".join(
        f"{quote(name, safe='')}={quote(NULL if text is None else text, safe='')}/"
        for name, text in texts
    )
