"""List a day, freeze it, compare its files.

A snapshot is plain data: it can be printed, compared, stored and replayed. Nothing of it depends
on Ray or on the order in which footers arrive. A driver holds a million files: classes of which
there is one a file have slots, and files share what they have in common.
"""

import base64
import bisect
import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from cluster.lake.input.arrow_types import plain_schema
from cluster.lake.input.footer import Bad, read_footer
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Object, Store, check_key
from models import canonical_json
from models.refusal import Refusal

ALL = "all"  # the one day of an input without partitions
# Footers are small reads that wait for the network: more threads than CPUs.
_FOOTER_THREADS = 16
_FOOTERS_AHEAD = 4096


@dataclass(frozen=True, slots=True)
class RowGroup:
    rows: int
    bytes: int  # uncompressed


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file whose footer was read."""

    key: str  # relative to the snapshot's URI
    size: int  # bytes
    version: str  # see `store.Object`
    rows: int
    row_groups: tuple[RowGroup, ...]
    columns: tuple[tuple[str, str], ...]  # name and type of each column


@dataclass(frozen=True)
class RejectedFile:
    """A file that cannot be used; its rows, if it has any, are not in the snapshot's count."""

    key: str
    # empty_file, not_parquet, truncated, vanished, changed, oversized, unreadable, duplicate
    rule: str
    message: str


@dataclass(frozen=True)
class Snapshot:
    """The frozen list of input files of one day."""

    uri: str  # as `open_store` takes it
    day: str
    files: tuple[InputFile, ...]
    rejected: tuple[RejectedFile, ...]
    schema: pa.Schema  # of the first good file, as `reading.read` gives it; empty without files
    # Of rows that were derived (see `derive`): digests of the input's day, and of all that they
    # were derived from.
    input_digest: str = ""
    derivation: str = ""

    @cached_property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @cached_property
    def bytes(self) -> int:
        """Uncompressed bytes of all columns."""
        return sum(group.bytes for file in self.files for group in file.row_groups)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what was found: the same files give the same digest, wherever they lie.

        Derived rows have the digest of what they were derived from.
        """
        if self.derivation:
            return self.derivation
        digest = hashlib.sha256()

        def add(*entry: str | int) -> None:
            digest.update(canonical_json.encode(entry, ascii_only=True, spaced=True))

        add(self.day, len(self.files))
        for file in self.files:
            add(file.key, file.size, file.version, file.rows)
        for bad in self.rejected:
            add(bad.key, bad.rule)
        return digest.hexdigest()

    @property
    def day_digest(self) -> str:
        """The digest of the day's own files in the input, whatever else its rows are made from."""
        return self.input_digest or self.digest

    def to_document(self) -> dict[str, Any]:
        """JSON-able; `from_document` gives an equal snapshot."""
        schema = base64.b64encode(self.schema.serialize().to_pybytes()).decode()
        return {
            "uri": self.uri,
            "day": self.day,
            "files": [asdict(file) for file in self.files],
            "rejected": [asdict(file) for file in self.rejected],
            "schema": schema,
            "input_digest": self.input_digest,
            "derivation": self.derivation,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Snapshot":
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(document["schema"])))
        files = tuple(_file(entry) for entry in document["files"])
        rejected = tuple(RejectedFile(**entry) for entry in document["rejected"])
        derived = document["input_digest"], document["derivation"]
        return cls(document["uri"], document["day"], files, rejected, schema, *derived)


@dataclass(frozen=True)
class Drift:
    """A column whose type in one file is not that of the snapshot's schema."""

    key: str
    column: str
    expected: str
    found: str | None  # None: the file has no such column

    def __str__(self) -> str:
        found = f"found {self.found}" if self.found else "the file has no such column"
        return f"{self.key}: column {self.column!r}: expected {self.expected}, {found}"


def list_days(uri: str, partition: str | None) -> tuple[str, ...]:
    """The days there are at `uri`, in order; `("all",)` or none for an input without partitions."""
    store, root = _at(uri)
    if partition is None:
        return (ALL,) if any(_is_data(o.key) for o in store.list(root)) else ()
    return tuple(sorted(_partitions(store, root, partition)))


def take_snapshot(uri: str, partition: str | None, day: str) -> Snapshot:
    """Freeze the files of a day: `uri/<partition>=<day>/**.parquet`.

    Names that begin with `_` or `.` are ignored at every level. A day whose folder is there but
    empty gives a snapshot without files. Raises `Refusal` for a day that is not there, a partition
    value that leaves its folder, and a day with files of which none is Parquet.
    """
    store, root = _at(uri)
    seen = [o for folder in _folders(store, root, uri, partition, day) for o in store.list(folder)]
    visible = sorted(o for o in seen if not _hidden(o.key))
    data = [o for o in visible if _is_data(o.key)]
    if visible and not data:
        raise Refusal(
            f"day {day} of {uri} has {len(visible)} files, but none that ends in .parquet "
            f"(the first is {visible[0].key}): expected Parquet files"
        )
    good: list[tuple[InputFile, str]] = []
    bad: list[RejectedFile] = []
    first, columns = pa.schema([]), dict[Any, Any]()  # equal columns are one object
    for file, schema, mark in _looks(store, data):
        if isinstance(file, RejectedFile):
            bad.append(file)
            continue
        first = first if good else plain_schema(schema)
        shared = columns.setdefault(file.columns, file.columns)
        good.append((replace(file, columns=shared), mark))
    doubles = _duplicates(store, good)
    return Snapshot(
        uri=store.uri if partition is None else uri,
        day=day,
        files=tuple(file for file, _ in good if file.key not in doubles),
        rejected=tuple(sorted((*bad, *doubles.values()), key=lambda f: f.key)),
        schema=first,  # a double is never the first
    )


def inspect_files(uri: str, keys: Sequence[str]) -> tuple[tuple[InputFile, ...], pa.Schema]:
    """These files as they are now, and the schema of the first. `Refusal` for one that is none."""
    store = open_store(uri)
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        outcomes = list(threads.map(lambda key: _look(store, store.stat(key)), keys))
    for file, _, _ in outcomes:
        if isinstance(file, RejectedFile):
            raise Refusal(file.message)
    files = tuple(file for file, _, _ in outcomes if isinstance(file, InputFile))
    return files, plain_schema(outcomes[0][1]) if outcomes else pa.schema([])


def find_drift(snapshot: Snapshot, needed: Sequence[str]) -> tuple[Drift, ...]:
    """Where a file has a needed column in another type than the snapshot's schema, or not at all.

    Ways to store the same values (dictionaries, large strings, decimals) are no drift. A column
    that the first file lacks is compared with the first file that has it.
    """
    expected: dict[str, str] = {}
    layouts = dict.fromkeys(file.columns for file in snapshot.files)  # in their order; few
    for name, kind in (column for layout in layouts for column in layout):
        expected.setdefault(name, kind)
    wanted = [name for name in dict.fromkeys(needed) if name in expected]
    odd = {layout: [n for n in wanted if dict(layout).get(n) != expected[n]] for layout in layouts}
    return tuple(
        Drift(file.key, name, expected[name], dict(file.columns).get(name))
        for file in snapshot.files
        for name in odd[file.columns]
    )


def _at(uri: str) -> tuple[Store, str]:
    """The store of the keys, and the prefix of the input in it (see `open_store`)."""
    store = open_store(uri)
    last = uri.rstrip("/").rsplit("/", 1)[-1]
    return store, last if last.endswith(".parquet") else ""


def _folders(store: Store, root: str, uri: str, partition: str | None, day: str) -> list[str]:
    if partition is None:
        if day != ALL:
            raise Refusal(f"{uri} has no partitions: its only day is {ALL!r}, not {day!r}")
        if not store.list(root):
            raise Refusal(f"no data in {uri}: expected Parquet files, found nothing")
        return [root]
    _check_value(partition, day)
    there = _partitions(store, root, partition)
    if day not in there:
        raise Refusal(_missing_day(uri, partition, day, sorted(there)))
    return there[day]


def _partitions(store: Store, root: str, partition: str) -> dict[str, list[str]]:
    """Folders by day: two folders may spell one day, with and without percent-encoding."""
    found: dict[str, list[str]] = {}
    for name in store.folders(root):
        key, equals, value = name.partition("=")
        if equals and unquote(key) == partition:
            day = unquote(value)
            _check_value(partition, day)
            found.setdefault(day, []).append("/".join(filter(None, (root, name))))
    return found


def _check_value(partition: str, value: str) -> None:
    try:
        check_key(value)
    except Refusal:
        raise Refusal(
            f"partition {partition}={value!r} is not allowed: expected a value without '..', "
            "backslashes, control characters or empty parts; rename the folder"
        ) from None


def _missing_day(uri: str, partition: str, day: str, there: list[str]) -> str:
    if not there:
        return f"{uri} has no folder {partition}=…: expected one for day {day}"
    place = bisect.bisect(there, day)
    nearest = ", ".join(there[max(0, place - 3) : place + 3])
    return f"day {day} is not in {uri}: it has {len(there)} days, the nearest are {nearest}"


def _hidden(key: str) -> bool:
    return any(part.startswith(("_", ".")) for part in key.split("/"))


def _is_data(key: str) -> bool:
    return key.lower().endswith(".parquet") and not _hidden(key)


def _looks(
    store: Store, data: Sequence[Object]
) -> Iterator[tuple[InputFile | RejectedFile, pa.Schema, str]]:
    """`_look` at each, in order; a part at a time, since what waits for a thread takes 1 KB."""
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        for start in range(0, len(data), _FOOTERS_AHEAD):
            part = data[start : start + _FOOTERS_AHEAD]
            yield from threads.map(lambda one: _look(store, one), part)


def _look(store: Store, found: Object) -> tuple[InputFile | RejectedFile, pa.Schema, str]:
    """The file with its schema and the fingerprint of its footer, or why it cannot be used."""
    read = read_footer(store, found)
    if isinstance(read, Bad):
        return RejectedFile(found.key, read.rule, read.message), pa.schema([]), ""
    groups = tuple(RowGroup(rows, size) for rows, size in read.row_groups)
    now = read.object
    file = InputFile(now.key, now.size, now.version, read.rows, groups, read.columns)
    return file, read.schema, read.fingerprint


def _duplicates(store: Store, files: Sequence[tuple[InputFile, str]]) -> dict[str, RejectedFile]:
    """Files with the same bytes as an earlier one: their rows would be counted twice."""
    first: dict[tuple[int, str], list[tuple[str, str]]] = {}  # by size and footer: key, digest
    found = {}
    for file, fingerprint in files:
        if not file.rows:
            continue
        alike = first.setdefault((file.size, fingerprint), [])
        if alike and not alike[0][1]:
            alike[0] = alike[0][0], _digest(store, alike[0][0])
        digest = _digest(store, file.key) if alike else ""
        twin = next((key for key, other in alike if other and other == digest), None)
        if twin is None:
            alike.append((file.key, digest))
        else:
            message = f"{file.key} has the same bytes as {twin}: its {file.rows:,} rows are doubles"
            found[file.key] = RejectedFile(file.key, "duplicate", message)
    return found


def _digest(store: Store, key: str) -> str:
    return hashlib.sha256(store.read(key)).hexdigest()


def _file(document: dict[str, Any]) -> InputFile:
    groups = tuple(RowGroup(**group) for group in document["row_groups"])
    columns = tuple((name, kind) for name, kind in document["columns"])
    return InputFile(**{**document, "row_groups": groups, "columns": columns})
