"""The law of the listing: every file of an input is of one day, or named as of none."""

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input.partitions import Days, Source, find_days, list_files
from cluster.lake.storage.store import find_fault, print_name

FOLDERS = [
    *(f"day={day}" for day in ("2026-11-20", "20261120", "2026-11-21", "8", "soon", "", "..%2f")),
    *("day=__HIVE_DEFAULT_PARTITION__", "Day=2026-11-20", "day =2026-11-20", "DAY=8"),
    *("region=eu", "notes", "year=2026", "month=11", "2026", "11", "20", "hour=05", "a\\b", "a\nb"),
    *("_temporary", ".tmp"),
]
FILES = [
    "a.parquet",
    "000000_0",
    "x.parquet.snappy",
    "n\\m",
    "n\tm",
    "_SUCCESS",
    ".a.crc",
    "README",
]
TREES = st.sets(
    st.tuples(st.lists(st.sampled_from(FOLDERS), max_size=4), st.sampled_from(FILES)).map(
        lambda path: "/".join((*path[0], path[1]))
    ),
    max_size=12,
)
PARTITIONS = st.sampled_from(
    ["day", "%Y/%m/%d", ("year", "month", "day"), ("day", "hour"), "region", None]
)


def is_marker(path: str) -> bool:
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def is_named(path: str, days: Days, root: Path) -> bool:
    """Whether a folder of no day, or a bad name, covers the file."""
    above = [str(root), *("/".join(path.split("/")[:n]) for n in range(1, path.count("/") + 2))]
    return {print_name(one) for one in above} & {one.name for one in days.stray} != set()


@settings(max_examples=60)
@given(TREES, PARTITIONS)
def test_no_file_is_overlooked_and_none_is_of_two_days(
    tree: set[str], partition: str | tuple[str, ...] | None
) -> None:
    root = Path(tempfile.mkdtemp(prefix="lake-"))
    try:
        for path in tree:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(b"x")
        source = Source(str(root), partition)
        days = find_days(source)
        of_days: list[str] = []
        for day in days.names:
            found = list_files(source, day)
            of_days += [file.key for file in found.files]
            of_days += [file.key for file in found.rejected]
    finally:
        shutil.rmtree(root)
    assert len(of_days) == len(set(of_days))
    for path in tree:
        if is_marker(path):
            assert path not in of_days
            continue
        faulty = [
            print_name("/".join(path.split("/")[:n]))
            for n in range(1, path.count("/") + 2)
            if find_fault("/".join(path.split("/")[:n]))
        ]
        in_day = path in of_days or any(name in of_days for name in faulty)
        assert in_day or is_named(path, days, root), path
