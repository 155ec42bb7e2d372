"""A day is listed, checked and frozen; unusable files are named with the reason."""

import threading
from typing import Any

import pyarrow as pa
import pytest

from cluster.lake.input.footer import Footer, read_footer
from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.partitions import list_days
from cluster.lake.input.snapshot import Snapshot, find_drift, take_snapshot
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded, numbered

DAY = "2026-11-22"


def put(store: Store, name: str, table: pa.Table, day: str = DAY, **options: Any) -> None:
    store.put(f"day={day}/{name}", encoded(table, **options))


def reasons(taken: Snapshot) -> dict[str, tuple[str, str]]:
    return {f.key.rsplit("/", 1)[-1]: (f.rule, f.message) for f in taken.rejected}


def test_a_day_is_frozen_with_its_row_groups(store: Store) -> None:
    put(store, "b.parquet", numbered(10), row_group_size=4)
    put(store, "hour=3/a.parquet", numbered(5, 10))
    put(store, "a.parquet", numbered(3), day="2026-11-21")
    taken = take_snapshot(store.uri, "day", DAY)
    assert [f.key for f in taken.files] == [f"day={DAY}/b.parquet", f"day={DAY}/hour=3/a.parquet"]
    assert [g.rows for g in taken.files[0].row_groups] == [4, 4, 2]
    assert (taken.rows, taken.day, taken.uri) == (15, DAY, store.uri)
    assert taken.bytes > 15 * 16
    assert taken.files[0].version == store.stat(f"day={DAY}/b.parquet").version
    assert list_days(store.uri, "day") == ("2026-11-21", DAY)


def test_the_digest_changes_with_the_files_and_only_then(store: Store) -> None:
    put(store, "a.parquet", numbered(10))
    first = take_snapshot(store.uri, "day", DAY)
    store.put("day=2026-11-21/other.parquet", encoded(numbered(3)))
    assert take_snapshot(store.uri, "day", DAY).digest == first.digest
    put(store, "a.parquet", numbered(10, 1))
    second = take_snapshot(store.uri, "day", DAY)
    store.put(f"day={DAY}/b.parquet", b"")
    third = take_snapshot(store.uri, "day", DAY)
    assert len({first.digest, second.digest, third.digest}) == 3


def test_an_input_without_partitions_is_one_day_named_all(store: Store) -> None:
    store.put("x/a.parquet", encoded(numbered(3)))
    store.put("b.parquet", encoded(numbered(4, 3)))
    assert list_days(store.uri, None) == ("all",)
    taken = take_snapshot(store.uri, None, "all")
    assert [f.key for f in taken.files] == ["b.parquet", "x/a.parquet"]
    with pytest.raises(Refusal, match="its only day is 'all', not '2026-11-22'"):
        take_snapshot(store.uri, None, DAY)


def test_the_uri_may_be_one_file(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(3)))
    store.put("b.parquet", encoded(numbered(4, 3)))
    taken = take_snapshot(f"{store.uri}/b.parquet", None, "all")
    assert [f.key for f in taken.files] == ["b.parquet"]
    assert open_store(f"{store.uri}/b.parquet").exists(taken.files[0].key)
    with pytest.raises(Refusal, match=r"no data in .*c\.parquet"):
        take_snapshot(f"{store.uri}/c.parquet", None, "all")


def test_the_uri_may_be_a_folder_named_like_a_file(store: Store) -> None:
    store.put("spark.parquet/part-0.parquet", encoded(numbered(3)))
    store.put("spark.parquet/_SUCCESS", b"")
    taken = take_snapshot(f"{store.uri}/spark.parquet", None, "all")
    assert [f.key for f in taken.files] == ["spark.parquet/part-0.parquet"]


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS",
        "_delta_log/0.parquet",
        ".hidden.parquet",
        ".tmp/a.parquet",
        "_temporary/0/a.parquet",
        "notes.txt",
    ],
)
def test_markers_and_hidden_files_are_ignored(store: Store, name: str) -> None:
    put(store, "a.parquet", numbered(3))
    before = take_snapshot(store.uri, "day", DAY)
    store.put(f"day={DAY}/{name}", b"not data")
    assert take_snapshot(store.uri, "day", DAY) == before


def test_a_day_of_other_files_only_is_refused(store: Store) -> None:
    store.put(f"day={DAY}/a.csv", b"n,name\n1,x\n")
    store.put(f"day={DAY}/_SUCCESS", b"")
    message = f"has 1 files, but none that ends in .parquet \\(the first is day={DAY}/a.csv\\)"
    with pytest.raises(Refusal, match=message):
        take_snapshot(store.uri, "day", DAY)


def test_an_empty_day_has_no_files_and_no_rows(store: Store) -> None:
    store.put(f"day={DAY}/_SUCCESS", b"")
    taken = take_snapshot(store.uri, "day", DAY)
    assert (taken.files, taken.rejected, taken.rows) == ((), (), 0)
    assert taken.schema == pa.schema([])


def test_a_missing_day_is_refused_with_the_nearest_days(store: Store) -> None:
    with pytest.raises(Refusal, match=f"has no folder day=…: expected one for day {DAY}"):
        take_snapshot(store.uri, "day", DAY)
    for day in range(11, 21):
        put(store, "a.parquet", numbered(1), day=f"2026-11-{day}")
    nearest = "it has 10 days, the nearest are 2026-11-18, 2026-11-19, 2026-11-20"
    with pytest.raises(Refusal, match=f"day {DAY} is not in .*: {nearest}"):
        take_snapshot(store.uri, "day", DAY)
    with pytest.raises(Refusal, match="no data in"):
        take_snapshot(f"{store.uri}/nothing", None, "all")


def test_a_partition_value_is_percent_decoded(store: Store) -> None:
    put(store, "a.parquet", numbered(3), day="a%20b%3Ac")
    put(store, "b.parquet", numbered(3, 3), day="a b:c")
    assert list_days(store.uri, "day") == ("a b:c",)
    assert take_snapshot(store.uri, "day", "a b:c").rows == 6


@pytest.mark.parametrize("value", ["..%2F..%2Fetc", "%2E%2E", "a%2F..%2Fb", "a%00b", "a%5Cb"])
def test_a_partition_value_that_leaves_its_folder_is_refused(store: Store, value: str) -> None:
    put(store, "a.parquet", numbered(3), day=value)
    with pytest.raises(Refusal, match=r"partition day=.* is not allowed"):
        list_days(store.uri, "day")


@pytest.mark.parametrize("day", ["..", "../secret", "a/../b", "a\\b", "", "a\nb"])
def test_a_day_that_leaves_its_folder_is_refused(store: Store, day: str) -> None:
    put(store, "a.parquet", numbered(3))
    with pytest.raises(Refusal, match=r"partition day=.* is not allowed"):
        take_snapshot(store.uri, "day", day)


def test_files_that_cannot_be_read_are_named_with_the_reason(store: Store) -> None:
    good = encoded(numbered(1000))
    put(store, "good.parquet", numbered(5))
    put(store, "no_rows.parquet", numbered(0))
    for name, data in {
        "zero.parquet": b"",
        "csv.parquet": b"n,name,x\n1,row 1,0.1\n" * 50,
        "gzip.parquet": b"\x1f\x8b\x08\x00" + bytes(100),
        "short.parquet": b"P",
        "cut.parquet": good[: len(good) // 2],
        "footer.parquet": good[:-60] + bytes(52) + good[-8:],
        "secret.parquet": good[:-4] + b"PARE",
    }.items():
        store.put(f"day={DAY}/{name}", data)
    taken = take_snapshot(store.uri, "day", DAY)
    assert [f.key.rsplit("/", 1)[-1] for f in taken.files] == ["good.parquet", "no_rows.parquet"]
    assert taken.rows == 5
    found = reasons(taken)
    assert {name: rule for name, (rule, _) in found.items()} == {
        "zero.parquet": "empty_file",
        "csv.parquet": "not_parquet",
        "gzip.parquet": "not_parquet",
        "short.parquet": "not_parquet",
        "cut.parquet": "truncated",
        "footer.parquet": "unreadable",
        "secret.parquet": "unreadable",
    }
    assert "has zero bytes: expected a Parquet file" in found["zero.parquet"][1]
    assert "it begins like text, perhaps CSV or JSON (1,050 bytes)" in found["csv.parquet"][1]
    assert "it begins as Parquet, but has no footer" in found["cut.parquet"][1]
    assert "is encrypted: expected plain Parquet" in found["secret.parquet"][1]
    assert "row 1" not in found["csv.parquet"][1], "messages quote no content"


def test_a_file_that_vanishes_while_its_footer_is_read_is_named(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(5)))
    found = store.stat("a.parquet")
    store.delete("a.parquet")
    read = read_footer(store, found)
    assert isinstance(read, RejectedFile)
    assert read.rule == "vanished"
    assert read.message == "a.parquet was listed, but is not there any more"


def test_a_file_that_is_replaced_while_its_footer_is_read_is_read_again(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(5)))
    found = store.stat("a.parquet")
    store.put("a.parquet", encoded(numbered(7)))
    read = read_footer(store, found)
    assert isinstance(read, Footer)
    assert (read.file.rows, read.file.version) == (7, store.stat("a.parquet").version)


def test_a_second_copy_of_a_file_is_set_aside(store: Store) -> None:
    put(store, "part-0.parquet", numbered(100))
    put(store, "part-0 (copy).parquet", numbered(100))
    put(store, "part-1.parquet", numbered(100, 100))
    put(store, "none-a.parquet", numbered(0))
    put(store, "none-b.parquet", numbered(0))
    taken = take_snapshot(store.uri, "day", DAY)
    assert taken.rows == 200
    assert reasons(taken) == {
        "part-0.parquet": (
            "duplicate",
            f"day={DAY}/part-0.parquet has the same bytes as day={DAY}/part-0 (copy).parquet: "
            "its 100 rows are doubles",
        )
    }


def test_files_with_equal_footers_and_other_bytes_are_no_duplicates(store: Store) -> None:
    plain: dict[str, Any] = {
        "compression": "none",
        "use_dictionary": False,
        "write_statistics": False,
    }
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 1.0)):
        table = pa.table({"x": [value] * 10})
        put(store, f"{name}.parquet", table, write_page_checksum=False, **plain)
    taken = take_snapshot(store.uri, "day", DAY)
    assert list(reasons(taken)) == ["c.parquet"]
    assert "has the same bytes as" in reasons(taken)["c.parquet"][1]


def test_the_schema_comes_from_the_first_good_file_in_plain_types(store: Store) -> None:
    store.put(f"day={DAY}/a.parquet", b"")
    table = pa.table(
        {
            "large": pa.array(["a"], pa.large_string()),
            "money": pa.array(["1.50"]).cast(pa.decimal128(10, 2)),
            "proto": pa.array(["tcp"]).dictionary_encode(),
        }
    )
    put(store, "b.parquet", table.replace_schema_metadata({"who": "pandas"}))
    taken = take_snapshot(store.uri, "day", DAY)
    kinds = [pa.string(), pa.float64(), pa.dictionary(pa.int32(), pa.string())]
    assert [f.type for f in taken.schema] == kinds
    assert taken.schema.metadata is None


def test_drift_between_files_is_named_with_column_and_file(store: Store) -> None:
    number = pa.table({"n": [1], "x": [0.5], "s": ["a"], "other": [1]})
    put(store, "a.parquet", number)
    narrow = number.set_column(1, "x", pa.array([0.5], pa.float32())).drop_columns(["other"])
    put(store, "b.parquet", narrow.set_column(2, "s", pa.array(["a"], pa.large_string())))
    put(store, "c.parquet", number.drop_columns(["n"]))
    taken = take_snapshot(store.uri, "day", DAY)
    assert [str(d) for d in find_drift(taken, ["n", "x", "s", "nowhere"])] == [
        f"day={DAY}/b.parquet: column 'x': expected double, found float",
        f"day={DAY}/c.parquet: column 'n': expected int64, the file has no such column",
    ]
    assert find_drift(taken, ["s"]) == ()


def test_many_footers_are_read_in_parallel(store: Store) -> None:
    for index in range(40):
        put(store, f"{index:03}.parquet", numbered(index + 1, 100 * index))
    before = threading.active_count()
    taken = take_snapshot(store.uri, "day", DAY)
    assert [f.rows for f in taken.files] == list(range(1, 41)), "in the order of their keys"
    assert threading.active_count() <= before + 1, "no thread is left behind"
