"""A day is listed, checked and frozen; unusable files are named with the reason."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import s3fs

from cluster.lake.input.file_types import find_drift
from cluster.lake.input.footer import Footer, read_footer
from cluster.lake.input.input_file import RejectedFile
from cluster.lake.input.partitions import Source, find_days, list_days, propose_partition
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.s3 import S3Store
from cluster.lake.storage.store import Store
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded, numbered

DAY = "2026-11-22"


def put(store: Store, name: str, table: pa.Table, day: str = DAY, **options: Any) -> None:
    store.put(f"day={day}/{name}", encoded(table, **options))


def as_tuple(found: str | list[str] | None) -> str | tuple[str, ...] | None:
    return tuple(found) if isinstance(found, list) else found


def put_raw(store: Store, key: str, data: bytes) -> None:
    """A file or an object with a name that no store writes."""
    if isinstance(store, S3Store):
        client = s3fs.S3FileSystem(skip_instance_cache=True)
        client.call_s3("put_object", Bucket=store.bucket, Key=f"{store.prefix}/{key}", Body=data)
        return
    path = Path(store.uri) / key
    path.parent.mkdir(parents=True)
    path.write_bytes(data)


def reasons(taken: Snapshot) -> dict[str, tuple[str, str]]:
    return {f.key.rsplit("/", 1)[-1]: (f.rule, f.message) for f in taken.rejected}


def test_a_day_is_frozen_with_its_row_groups(store: Store) -> None:
    put(store, "b.parquet", numbered(10), row_group_size=4)
    put(store, "hour=3/a.parquet", numbered(5, 10))
    put(store, "a.parquet", numbered(3), day="2026-11-21")
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert [f.key for f in taken.files] == [f"day={DAY}/b.parquet", f"day={DAY}/hour=3/a.parquet"]
    assert [g.rows for g in taken.files[0].row_groups] == [4, 4, 2]
    assert (taken.rows, taken.day, taken.uri) == (15, DAY, store.uri)
    assert taken.bytes > 15 * 16
    assert taken.files[0].version == store.stat(f"day={DAY}/b.parquet").version
    assert list_days(Source(store.uri, "day")) == ("2026-11-21", DAY)


def test_the_digest_changes_with_the_files_and_only_then(store: Store) -> None:
    put(store, "a.parquet", numbered(10))
    first = take_snapshot(Source(store.uri, "day"), DAY)
    store.put("day=2026-11-21/other.parquet", encoded(numbered(3)))
    assert take_snapshot(Source(store.uri, "day"), DAY).digest == first.digest
    put(store, "a.parquet", numbered(10, 1))
    second = take_snapshot(Source(store.uri, "day"), DAY)
    store.put(f"day={DAY}/b.parquet", b"")
    third = take_snapshot(Source(store.uri, "day"), DAY)
    assert len({first.digest, second.digest, third.digest}) == 3


def test_an_input_without_partitions_is_one_day_named_all(store: Store) -> None:
    store.put("x/a.parquet", encoded(numbered(3)))
    store.put("b.parquet", encoded(numbered(4, 3)))
    assert list_days(Source(store.uri)) == ("all",)
    taken = take_snapshot(Source(store.uri), "all")
    assert [f.key for f in taken.files] == ["b.parquet", "x/a.parquet"]
    with pytest.raises(Refusal, match="its only day is 'all', not '2026-11-22'"):
        take_snapshot(Source(store.uri), DAY)


def test_the_uri_may_be_one_file(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(3)))
    store.put("b.parquet", encoded(numbered(4, 3)))
    taken = take_snapshot(Source(f"{store.uri}/b.parquet"), "all")
    assert [f.key for f in taken.files] == ["b.parquet"]
    assert open_store(f"{store.uri}/b.parquet").exists(taken.files[0].key)
    with pytest.raises(Refusal, match=r"no data in .*c\.parquet"):
        take_snapshot(Source(f"{store.uri}/c.parquet"), "all")


def test_the_uri_may_be_a_folder_named_like_a_file(store: Store) -> None:
    store.put("spark.parquet/part-0.parquet", encoded(numbered(3)))
    store.put("spark.parquet/_SUCCESS", b"")
    taken = take_snapshot(Source(f"{store.uri}/spark.parquet"), "all")
    assert [f.key for f in taken.files] == ["spark.parquet/part-0.parquet"]


@pytest.mark.parametrize(
    "name",
    [
        "_SUCCESS",
        "_delta_log/0.parquet",
        ".hidden.parquet",
        ".tmp/a.parquet",
        "_temporary/0/a.parquet",
        "part-0.parquet/_metadata",
        "hour=1_$folder$",
    ],
)
def test_markers_and_hidden_files_are_ignored(store: Store, name: str) -> None:
    put(store, "a.parquet", numbered(3))
    before = take_snapshot(Source(store.uri, "day"), DAY)
    store.put(f"day={DAY}/{name}", b"not data")
    assert take_snapshot(Source(store.uri, "day"), DAY) == before


@pytest.mark.parametrize("name", ["000000_0", "x.parq", "y.parquet.snappy", "Z.PARQUET"])
def test_a_file_is_parquet_by_its_content_and_not_by_its_name(store: Store, name: str) -> None:
    put(store, "part-0.parquet", numbered(3))
    put(store, name, numbered(4, 3))
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert (taken.rows, taken.rejected) == (7, ())
    store.put(f"day={DAY}/{name}", b"n,name\n1,x\n")
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    (bad,) = taken.rejected
    assert (taken.rows, bad.key, bad.rule) == (3, f"day={DAY}/{name}", "not_parquet")


def test_one_file_of_any_name_is_an_input(store: Store) -> None:
    store.put("x.parq", encoded(numbered(3)))
    taken = take_snapshot(Source(f"{store.uri}/x.parq"), "all")
    assert open_store(taken.uri).exists(taken.files[0].key)


NOT_KEYS = ["a\\b.parquet", f"{'deep/' * 70}a.parquet"]


@pytest.mark.parametrize("name", NOT_KEYS)
def test_a_file_with_a_bad_name_is_set_aside_and_named(store: Store, name: str) -> None:
    put_raw(store, f"day={DAY}/{name}", encoded(numbered(4, 3)))
    put(store, "part-0.parquet", numbered(3))
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    (bad,) = taken.rejected
    assert (taken.rows, bad.rule, taken.misnamed) == (3, "bad_name", (bad,))
    assert bad.key.isprintable()
    assert bad.key.startswith(f"day={DAY}/")


def test_an_empty_folder_name_on_s3_is_set_aside(s3_uri: str) -> None:
    store = open_store(s3_uri)
    put(store, "part-0.parquet", numbered(3))
    for key in (f"day={DAY}//a.parquet", f"/day={DAY}/a.parquet"):
        put_raw(store, key, encoded(numbered(4, 3)))
    taken = take_snapshot(Source(s3_uri, "day"), DAY)
    assert [file.key for file in taken.rejected] == [f"day={DAY}//a.parquet"]
    assert [file.name for file in taken.stray] == ["/"]
    assert taken.rows == 3


def test_an_empty_day_has_no_files_and_no_rows(store: Store) -> None:
    store.put(f"day={DAY}/_SUCCESS", b"")
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert (taken.files, taken.rejected, taken.rows) == ((), (), 0)
    assert taken.schema == pa.schema([])


def test_a_missing_day_is_refused_with_the_nearest_days(store: Store) -> None:
    with pytest.raises(Refusal, match=f"has no folder day=…: expected one for day {DAY}"):
        take_snapshot(Source(store.uri, "day"), DAY)
    for day in range(11, 21):
        put(store, "a.parquet", numbered(1), day=f"2026-11-{day}")
    nearest = "it has 10 days, the nearest are 2026-11-18, 2026-11-19, 2026-11-20"
    with pytest.raises(Refusal, match=f"day {DAY} is not in .*: {nearest}"):
        take_snapshot(Source(store.uri, "day"), DAY)
    with pytest.raises(Refusal, match="no data in"):
        take_snapshot(Source(f"{store.uri}/nothing"), "all")


def test_a_partition_value_is_percent_decoded(store: Store) -> None:
    put(store, "a.parquet", numbered(3), day="a%20b%3Ac")
    put(store, "b.parquet", numbered(3, 3), day="a b:c")
    assert list_days(Source(store.uri, "day")) == ("a b:c",)
    assert take_snapshot(Source(store.uri, "day"), "a b:c").rows == 6


ODD = ["..%2F..%2Fetc", "%2E%2E", "a%2F..%2Fb", "a%00b", "a%5Cb", "", "__HIVE_DEFAULT_PARTITION__"]


@pytest.mark.parametrize("value", ODD)
def test_a_value_that_is_no_day_is_set_aside_and_named(store: Store, value: str) -> None:
    put(store, "a.parquet", numbered(3), day=value)
    put(store, "a.parquet", numbered(3))
    days = find_days(Source(store.uri, "day"))
    assert days.names == (DAY,)
    assert [(one.name, one.files) for one in days.stray] == [(f"day={value}", 1)]
    assert take_snapshot(Source(store.uri, "day"), DAY).stray == days.stray


def test_what_lies_beside_the_days_is_named(store: Store) -> None:
    put(store, "a.parquet", numbered(3))
    store.put("late.parquet", encoded(numbered(4)))
    store.put("_SUCCESS", b"")
    store.put(f"Day={DAY}/a.parquet", encoded(numbered(5)))
    store.put("day=soon/a.parquet", encoded(numbered(6)))
    root, misspelled, no_date = sorted(
        find_days(Source(store.uri, "day")).stray, key=lambda one: ("=" in one.name, one.name)
    )
    assert (misspelled.name, misspelled.files, misspelled.is_day) == (f"Day={DAY}", 1, True)
    assert (no_date.name, no_date.is_day) == ("day=soon", False)
    assert "the first is late.parquet" in root.reason


@pytest.mark.parametrize(
    ("partition", "prefix"),
    [
        ("day", "region=eu/day=2026-11-{day:02}"),
        ("dt=%Y%m%d", "dt=202611{day:02}"),
        (("year", "month", "day"), "year=2026/region=eu/month=11/day={day}"),
        ("%Y/%m/%d", "AWSLogs/123456789012/eu-west-1/2026/11/{day:02}/05"),
        ("%Y-%m-%d", "logs/2026-11-{day:02}"),
        (("date", "hour"), "date=2026-11-{day:02}/hour=05"),
    ],
)
def test_days_are_found_however_folders_name_them(
    store: Store, partition: str | tuple[str, ...], prefix: str
) -> None:
    source = Source(store.uri, partition)
    for day in (8, 9, 10):
        store.put(f"{prefix.format(day=day)}/a.parquet", encoded(numbered(day)))
    store.put(f"{prefix.format(day=11).replace('eu', 'us')}/a.parquet", encoded(numbered(11)))
    assert list_days(source) == ("2026-11-08", "2026-11-09", "2026-11-10", "2026-11-11")
    for day in (8, 9, 10, 11):
        taken = take_snapshot(source, f"2026-11-{day:02}")
        assert (taken.day, taken.rows, taken.stray) == (f"2026-11-{day:02}", day, ())
    proposed = propose_partition(store.uri)
    assert list_days(Source(store.uri, as_tuple(proposed))) == list_days(source)


def test_days_that_are_integers_have_the_order_of_integers(store: Store) -> None:
    for day in ("8", "9", "10", "011"):
        put(store, "a.parquet", numbered(3), day=day)
    assert list_days(Source(store.uri, "day")) == ("8", "9", "10", "11")
    assert take_snapshot(Source(store.uri, "day"), "11").rows == 3


def test_a_day_with_hours_is_complete_when_its_last_hour_is_there(store: Store) -> None:
    for day, hours in ((20, (0, 23)), (21, (0, 22)), (22, (23,)), (23, (0,))):
        for hour in hours:
            put(store, f"hour={hour:02}/a.parquet", numbered(3), day=f"2026-11-{day}")
    put(store, "a.parquet", numbered(3), day="2026-11-20")
    days = find_days(Source(store.uri, ("day", "hour")))
    missing = [day for day in days.names if days.find_missing_hour(day)]
    assert missing == ["2026-11-21", "2026-11-23"]
    assert [one.name for one in days.stray] == ["day=2026-11-20"]  # a file beside the hours


@pytest.mark.parametrize("day", ["..", "../secret", "a/../b", "a\\b", "", "a\nb"])
def test_a_day_that_leaves_its_folder_is_refused(store: Store, day: str) -> None:
    put(store, "a.parquet", numbered(3))
    with pytest.raises(Refusal, match=r"day .* is not allowed"):
        take_snapshot(Source(store.uri, "day"), day)


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
    taken = take_snapshot(Source(store.uri, "day"), DAY)
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
    taken = take_snapshot(Source(store.uri, "day"), DAY)
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
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert list(reasons(taken)) == ["c.parquet"]
    assert "has the same bytes as" in reasons(taken)["c.parquet"][1]


def test_the_schema_has_plain_types_and_no_metadata(store: Store) -> None:
    store.put(f"day={DAY}/a.parquet", b"")
    table = pa.table(
        {
            "large": pa.array(["a"], pa.large_string()),
            "money": pa.array(["1.50"]).cast(pa.decimal128(10, 2)),
            "proto": pa.array(["tcp"]).dictionary_encode(),
        }
    )
    put(store, "b.parquet", table.replace_schema_metadata({"who": "pandas"}))
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    kinds = [pa.string(), pa.decimal128(10, 2), pa.string()]
    assert [f.type for f in taken.schema] == kinds
    assert taken.schema.metadata is None


def test_drift_between_files_is_named_with_column_and_file(store: Store) -> None:
    number = pa.table({"n": [1], "x": [0.5], "s": ["a"], "other": [1]})
    put(store, "a.parquet", number)
    other = number.set_column(1, "x", pa.array(["0.5"])).drop_columns(["other"])
    put(store, "b.parquet", other.set_column(2, "s", pa.array(["a"], pa.large_string())))
    put(store, "c.parquet", number.drop_columns(["n"]))
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert [str(d) for d in find_drift(taken.files, ["n", "x", "s", "nowhere"])] == [
        f"day={DAY}/b.parquet: column 'x': expected double, found string",
        f"day={DAY}/c.parquet: column 'n': expected int64, the file has no such column",
    ]
    assert find_drift(taken.files, ["s"]) == ()


def test_many_footers_are_read_in_parallel(store: Store) -> None:
    for index in range(40):
        put(store, f"{index:03}.parquet", numbered(index + 1, 100 * index))
    before = threading.active_count()
    taken = take_snapshot(Source(store.uri, "day"), DAY)
    assert [f.rows for f in taken.files] == list(range(1, 41)), "in the order of their keys"
    assert threading.active_count() <= before + 1, "no thread is left behind"
