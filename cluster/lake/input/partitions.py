"""The days of an input and their files: `<uri>/<partition>=<day>/**.parquet`."""

import bisect
from urllib.parse import unquote

from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Object, Store, check_key
from models.refusal import Refusal

ALL = "all"  # the one day of an input without partitions


def list_days(uri: str, partition: str | None) -> tuple[str, ...]:
    """The days of an input in order. An input without partitions has the one day `all`."""
    store, root = _open_input(uri)
    if partition is None:
        return (ALL,) if any(_is_data(found.key) for found in store.list(root)) else ()
    return tuple(sorted(_folders_by_day(store, root, partition)))


def list_files(uri: str, partition: str | None, day: str) -> tuple[Object, ...]:
    """The Parquet files of a day, sorted by key; none where the day's folder is empty.

    Names that begin with `_` or `.` are ignored at every level. Raises `Refusal` for a day that is
    not there, a partition value that leaves its folder, and a day with other files only.
    """
    store, root = _open_input(uri)
    folders = _folders_of_day(store, root, uri, partition, day)
    found = [file for folder in folders for file in store.list(folder)]
    visible = sorted(file for file in found if not _is_hidden(file.key))
    data = tuple(file for file in visible if _is_data(file.key))
    if visible and not data:
        raise Refusal(
            f"day {day} of {uri} has {len(visible)} files, but none that ends in .parquet "
            f"(the first is {visible[0].key}): expected Parquet files"
        )
    return data


def _open_input(uri: str) -> tuple[Store, str]:
    """The store and the prefix of the input in it (see `open_store`)."""
    store = open_store(uri)
    last = uri.rstrip("/").rsplit("/", 1)[-1]
    return store, last if last.endswith(".parquet") else ""


def _folders_of_day(
    store: Store, root: str, uri: str, partition: str | None, day: str
) -> list[str]:
    if partition is None:
        if day != ALL:
            raise Refusal(f"{uri} has no partitions: its only day is {ALL!r}, not {day!r}")
        if not store.list(root):
            raise Refusal(f"no data in {uri}: expected Parquet files, found nothing")
        return [root]
    _check_value(partition, day)
    days = _folders_by_day(store, root, partition)
    if day not in days:
        raise Refusal(_missing_day(uri, partition, day, sorted(days)))
    return days[day]


def _folders_by_day(store: Store, root: str, partition: str) -> dict[str, list[str]]:
    """One day may have two folders: its name with and without percent-encoding."""
    days: dict[str, list[str]] = {}
    for name in store.folders(root):
        key, equals, value = name.partition("=")
        if equals and unquote(key) == partition:
            day = unquote(value)
            _check_value(partition, day)
            days.setdefault(day, []).append("/".join(filter(None, (root, name))))
    return days


def _check_value(partition: str, value: str) -> None:
    try:
        check_key(value)
    except Refusal:
        raise Refusal(
            f"partition {partition}={value!r} is not allowed: expected a value without '..', "
            "backslashes, control characters or empty parts; rename the folder"
        ) from None


def _missing_day(uri: str, partition: str, day: str, days: list[str]) -> str:
    if not days:
        return f"{uri} has no folder {partition}=…: expected one for day {day}"
    place = bisect.bisect(days, day)
    nearest = ", ".join(days[max(0, place - 3) : place + 3])
    return f"day {day} is not in {uri}: it has {len(days)} days, the nearest are {nearest}"


def _is_hidden(key: str) -> bool:
    return any(part.startswith(("_", ".")) for part in key.split("/"))


def _is_data(key: str) -> bool:
    return key.lower().endswith(".parquet") and not _is_hidden(key)
