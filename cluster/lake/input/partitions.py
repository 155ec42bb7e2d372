"""The days of an input and their files, found by walking the folders that its layout names."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from urllib.parse import unquote

from cluster.lake.days import ALL, Kind, day_order, name_day, name_nearest, to_date
from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.layout import (
    LAST_HOUR,
    Above,
    Layout,
    Named,
    Stray,
    parse_layout,
    propose,
    read_value,
)
from cluster.lake.input.looks import Looks, UnsettledInput
from cluster.lake.input.tables import TableVersion, read_table, refuse_table_folder, refuse_tables
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Listing, Missing, Object, Store, find_fault, print_name
from models.refusal import Refusal

# Folders without a day, one in the other: more are never on the way to one.
_DEPTH = 16
# Listings are small requests that wait for the network.
_LISTINGS = 16
# Folders of a level that `propose_partition` looks into.
_LOOKED_AT = 6
# Objects that stand for folders: older Hadoop file systems on S3 make them.
_FOLDER_MARKER = "_$folder$"
BAD_NAME = "bad_name"  # the rule of files that are set aside by their name


@dataclass(frozen=True)
class Source:
    """Where rows are, and how its folders name days. The seam for other kinds of input.

    A source looks for a table once, and stays with the version that it finds: take a new one to see
    later versions.
    """

    uri: str
    partition: str | tuple[str, ...] | None = None  # see `layout`; None: one day named `all`
    values: Kind | None = None  # of a single key: the declared kind of its values

    @cached_property
    def layout(self) -> Layout | None:
        return None if self.partition is None else parse_layout(self.partition, self.values)

    @cached_property
    def table(self) -> TableVersion | None:
        """The Delta table at the URI; None for files. Raises as `read_table` does."""
        return read_table(*open_input(self.uri))


@dataclass(frozen=True)
class StrayFolder:
    """A folder, or files, of no day: no run reads them."""

    name: str  # printable
    reason: str
    files: int
    is_day: bool = False  # whether a day may be there: its key is misspelled, or no listing works

    def __str__(self) -> str:
        return f"{self.name} ({self.files:,} files): {self.reason}"


@dataclass(frozen=True)
class Days:
    """The days of an input in order, and what lies beside them."""

    folders: dict[str, tuple[str, ...]]  # of each day
    hours: dict[str, frozenset[int]] = field(default_factory=dict)  # empty: not kept by hours
    stray: tuple[StrayFolder, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.folders)

    def find_missing_hour(self, day: str) -> str | None:
        """Why a day with hours is not complete; None for a complete day, or one without hours."""
        hours = self.hours.get(day, frozenset())
        if not self.hours or LAST_HOUR in hours:
            return None
        last = max(hours, default=None)
        found = "no hour" if last is None else f"{len(hours)} hours, the last is {last}"
        return f"its last hour {LAST_HOUR} is not there: it has {found}"


@dataclass(frozen=True)
class DayFiles:
    """The files of a day, sorted by key, and what is set aside by its name alone."""

    files: tuple[Object, ...]
    rejected: tuple[RejectedFile, ...]
    stray: tuple[StrayFolder, ...]  # seen on the way to the day
    # By key, of a table: the partition values in its log (see `tables.LoggedFile`).
    logged: Mapping[str, str] = field(default_factory=dict)


def list_days(source: Source) -> tuple[str, ...]:
    """The days of an input in order. An input without a layout has the one day `all`."""
    return find_days(source).names


def find_days(source: Source) -> Days:
    """The days of an input, with all that is of no day."""
    store, root = open_input(source.uri)
    if source.table is not None:
        return _find_logged_days(source, source.table)
    if source.layout is None:
        found = store.survey(root)
        refuse_tables((one.key for one in found.objects), store)
        names = (*(one.key for one in found.objects), *(one.name for one in found.bad))
        return Days({ALL: (root,)} if any(not _is_marker(name) for name in names) else {})
    return _Walk(store, root, source.layout).find(lambda above: True)


def find_day(source: Source, text: str) -> str:
    """The name of the day that a person writes as `text` (see `name_day`), there or not."""
    if to_date(text) is not None and source.values in (None, "date"):
        return text  # its own name: nothing to list
    return name_day(text, list_days(source) if source.layout else (ALL,))


def list_files(source: Source, day: str) -> DayFiles:
    """The files of a day; none where its folders are empty.

    Names that begin with `_` or `.` are markers at every level, and ignored. Raises `Refusal` for a
    day that is not there.
    """
    store, root = open_input(source.uri)
    if source.table is not None:
        return _list_logged_files(store, source, source.table, day)
    folders, stray = _find_folders(store, root, source, day)
    found = [store.survey(folder) for folder in folders]
    refuse_tables((file.key for one in found for file in one.objects), store)
    files = (file for one in found for file in one.objects if not _is_marker(file.key))
    bad = (name for one in found for name in one.bad if not _is_marker(name.name))
    return DayFiles(
        tuple(sorted(files)),
        tuple(
            RejectedFile(one.name, BAD_NAME, f"{one.name} is no name of a file: {one.reason}")
            for one in sorted(bad)
        ),
        stray,
    )


def propose_partition(uri: str) -> str | list[str] | None:
    """The `input.partition` that the folders of an input suggest, from a few of them."""
    store, root = open_input(uri)
    if (table := read_table(store, root)) is not None:
        return propose(folders.split("/")[:-1] for folders in {f.folders for f in table.files})
    level: list[tuple[str, ...]] = [()]
    paths: list[tuple[str, ...]] = []
    for _ in range(_DEPTH):
        deeper = []
        for path in level:
            found = store.folders("/".join(filter(None, (root, *path))))
            names = sorted(
                (name for name in found if not _is_marker(name)),
                key=lambda name: day_order(name.rpartition("=")[2]),
            )
            few = _LOOKED_AT // 2
            picked = names if len(names) <= _LOOKED_AT else [*names[:few], *names[-few:]]
            deeper += [(*path, name) for name in picked]
        if not deeper:
            break
        few = _LOOKED_AT // 2
        level = deeper if len(deeper) <= _LOOKED_AT else [*deeper[:few], *deeper[-few:]]
        paths += deeper
    return propose(paths)


def open_input(uri: str) -> tuple[Store, str]:
    """The store of an input, and its folder or file in it (see `open_store`)."""
    store = open_store(uri)
    above, _, last = uri.rstrip("/").rpartition("/")
    if last.endswith(".parquet"):
        return store, last
    if "." in last and not store.folders():  # one file of another name
        around = open_store(above or ("/" if uri.startswith("/") else "."))
        if around.exists(last):
            return around, last
    return store, ""


class _Walk:
    """A walk from the input's folder down to the folders that name a day."""

    def __init__(self, store: Store, root: str, layout: Layout) -> None:
        self.store, self.root, self.layout = store, root, layout
        self.named: list[tuple[str, Named]] = []
        self.stray: list[StrayFolder] = []

    def find(self, enter: Callable[[Above], bool]) -> Days:
        """The days below the folders that `enter` lets through."""
        level: list[tuple[str, ...]] = [()]
        with ThreadPoolExecutor(_LISTINGS) as threads:
            for depth in range(_DEPTH + 1):
                deeper = []
                for path, found in zip(level, threads.map(self._look, level), strict=True):
                    if isinstance(found, str):
                        self.stray.append(StrayFolder(self._print(path), found, 0, is_day=True))
                        continue
                    refuse_tables((one.key for one in found.objects), self.store)
                    self._take_strays(path, found)
                    for name in found.folders:
                        if path:
                            refuse_table_folder(self.store, self._key(path), name)
                        if _is_marker(name):
                            continue
                        folders = (*path, name)
                        answer = self.layout.place(folders)
                        if isinstance(answer, Named):
                            self.named.append((self._key(folders), answer))
                        elif isinstance(answer, Stray):
                            self._set_aside(folders, answer)
                        elif depth == _DEPTH:
                            self._set_aside(folders, Stray(f"{_DEPTH} folders without a day"))
                        elif enter(answer):
                            deeper.append(folders)
                level = deeper
        return self._settle()

    def _look(self, path: tuple[str, ...]) -> Listing | str:
        """What is in a folder, or why it cannot be listed: a link that leads out, no permission.

        Raises where it is the input's own folder.
        """
        try:
            return self.store.survey(self._key(path), deep=False)
        except (Refusal, PermissionError) as error:
            if not path:
                raise
            return str(error)

    def _settle(self) -> Days:
        days, others = _settle(self.layout, self.named)
        for key, why in others:
            self._set_aside(tuple(key.split("/")), why)
        return replace(days, stray=tuple(sorted(self.stray, key=lambda one: one.name)))

    def _take_strays(self, path: tuple[str, ...], found: Listing) -> None:
        """Files and bad names directly in a folder above the days."""
        files = [file for file in found.objects if not _is_marker(file.key)]
        if files:
            first = print_name(files[0].key)
            reason = f"files outside of every folder {self.layout.text}, the first is {first}"
            self.stray.append(StrayFolder(self._print(path), reason, len(files)))
        self.stray += [StrayFolder(one.name, one.reason, 1) for one in found.bad]

    def _set_aside(self, path: tuple[str, ...], why: Stray) -> None:
        try:
            listed = self.store.list(self._key(path))
        except (Refusal, PermissionError):
            listed = ()
        files = sum(not _is_marker(file.key) for file in listed)
        self.stray.append(StrayFolder(self._print(path), why.reason, files, why.is_day))

    def _key(self, path: tuple[str, ...]) -> str:
        return "/".join(filter(None, (self.root, *path)))

    def _print(self, path: tuple[str, ...]) -> str:
        return print_name(self._key(path)) or self.store.uri


def _settle(
    layout: Layout, folders: Sequence[tuple[str, Named]]
) -> tuple[Days, list[tuple[str, Stray]]]:
    """The days of folders that name one, and the folders whose value is of another kind."""
    kind = layout.settle(named.value for _, named in folders)
    of_day: dict[str, list[str]] = {}
    hours: dict[str, set[int]] = {}
    others = []
    for key, named in folders:
        day = read_value(named, kind)
        if isinstance(day, Stray):
            others.append((key, day))
            continue
        of_day.setdefault(day.value, []).append(key)
        if day.hour is not None:
            hours.setdefault(day.value, set()).add(day.hour)
    days = Days(
        {day: tuple(of_day[day]) for day in sorted(of_day, key=day_order)},
        {day: frozenset(found) for day, found in hours.items()},
    )
    return days, others


def _find_logged_days(source: Source, table: TableVersion) -> Days:
    """The days of a table, by the partition values in its log."""
    if source.layout is None:
        every = tuple(dict.fromkeys(file.folders for file in table.files))
        return Days({ALL: every} if every else {})
    keys = [part.key for part in source.layout.parts]
    if not set(keys) <= set(table.columns):
        raise Refusal(
            f"input.partition names {source.layout.text}, but the Delta table {source.uri} is "
            f"partitioned by {', '.join(table.columns) or 'no column'}: expected columns that it "
            "is partitioned by, or null for one day named all"
        )
    counts = Counter(file.folders for file in table.files)
    named: list[tuple[str, Named]] = []
    stray: list[tuple[str, Stray]] = []
    for folders in sorted(counts):
        found = dict.fromkeys(folders.split("/")[:-1])
        by_key = {unquote(folder.partition("=")[0]): folder for folder in found}
        answer = source.layout.place([by_key[key] for key in keys if key is not None])
        if isinstance(answer, Named):
            named.append((folders, answer))
        elif isinstance(answer, Stray):
            stray.append((folders, answer))
    days, others = _settle(source.layout, named)
    aside = [
        StrayFolder(print_name(folders), why.reason, counts[folders])
        for folders, why in sorted((*stray, *others), key=lambda one: one[0])
    ]
    return replace(days, stray=tuple(aside))


def _list_logged_files(store: Store, source: Source, table: TableVersion, day: str) -> DayFiles:
    days = _find_logged_days(source, table)
    if day not in days.folders:
        raise Refusal(_describe_missing(source, day, days))
    own = set(days.folders[day])
    logged = {file.key: file.folders for file in table.files if file.folders in own}
    files: list[Object] = []
    gone: list[RejectedFile] = []
    looks = Looks()
    with ThreadPoolExecutor(_LISTINGS) as threads:
        for found in threads.map(lambda key: _stat(store, key, looks), sorted(logged)):
            if isinstance(found, Object):
                files.append(found)
            else:
                gone.append(found)
    return DayFiles(tuple(files), tuple(gone), days.stray, logged)


def _stat(store: Store, key: str, looks: Looks) -> Object | RejectedFile:
    try:
        return looks.read(key, lambda: store.stat(key))
    except UnsettledInput as error:
        if error.rule != Missing.rule:
            raise
        message = f"{key} is in the table's log, but not in its folder: it was removed or never put"
        return RejectedFile(key, "vanished", message)


def _find_folders(
    store: Store, root: str, source: Source, day: str
) -> tuple[Sequence[str], tuple[StrayFolder, ...]]:
    if source.layout is None:
        if day != ALL:
            raise Refusal(f"{source.uri} has no partitions: its only day is {ALL!r}, not {day!r}")
        found = store.survey(root)
        if not found.objects and not found.bad:
            raise Refusal(f"no data in {source.uri}: expected Parquet files, found nothing")
        return [root], ()
    if fault := find_fault(day):
        raise Refusal(f"day {print_name(day)!r} is not allowed ({fault}): expected a day's name")
    when = to_date(day)
    if when is not None:
        near = _Walk(store, root, source.layout).find(_way_to(when))
        if day in near.folders:
            return near.folders[day], near.stray
    days = find_days(source)
    if day not in days.folders:
        raise Refusal(_describe_missing(source, day, days))
    return days.folders[day], days.stray


def _way_to(when: date) -> Callable[[Above], bool]:
    return lambda above: above.may_hold(when)


def _describe_missing(source: Source, day: str, days: Days) -> str:
    if source.layout is None:
        return f"{source.uri} has no partitions, or no rows: its only day is {ALL!r}, not {day!r}"
    stray = "; ".join(map(str, days.stray[:3]))
    more = f" (set aside: {stray})" if stray else ""
    if not days.folders:
        return f"{source.uri} has no {_name_parts(source)}: expected one for day {day}{more}"
    return f"day {day} is not in {source.uri}: {name_nearest(day, days.names)}{more}"


def _name_parts(source: Source) -> str:
    assert source.layout is not None
    kind = "folder" if source.table is None else "files of"
    return f"{kind} {source.layout.text}"


def _is_marker(key: str) -> bool:
    """Whether readers of Parquet ignore the name: `_SUCCESS`, `_delta_log/…`, `.part.crc`."""
    return key.endswith(_FOLDER_MARKER) or any(
        part.startswith(("_", ".")) for part in key.split("/")
    )
