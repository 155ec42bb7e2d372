"""Rows of a split: which, in what order and type, and what happens to a damaged file."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input import reading
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import open_split, read_rows
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.local import LocalFile
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.ranged_file import RangedFile
from cluster.lake.storage.store import ChangedSinceSnapshot, Store
from models.refusal import Refusal, SchemaMismatch
from tests.cluster.lake.parquet_files import encoded, numbered


def one_split(store: Store, data: bytes, key: str = "a.parquet") -> Split:
    store.put(key, data)
    taken = take_snapshot(Source(f"{store.uri}/{key}"), "all")
    assert not taken.rejected
    (split,) = cut_splits(taken, 10**9, 10**12)
    return split


def rows(
    store: Store, split: Split, columns: tuple[str, ...] = ("n",), text: str | None = None
) -> list[tuple[object, ...]]:
    """Row number first, then the columns."""
    found: list[tuple[object, ...]] = []
    for batch, numbers in read_rows(store, split, columns, 64, filter_text=text):
        assert 0 < batch.num_rows <= 64 or text
        assert len(numbers) == batch.num_rows
        assert tuple(batch.schema.names) == columns
        found.extend(zip(numbers.tolist(), *batch.to_pydict().values(), strict=True))
    return found


def test_the_rows_of_all_splits_are_the_rows_of_the_file(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(1000), 90))
    taken = take_snapshot(Source(store.uri), "all")
    for most in (7, 50, 90, 250, 5000):
        splits = cut_splits(taken, most, 10**9)
        found = [row for split in splits for row in rows(store, split)]
        assert found == [(i, i) for i in range(1000)]


@pytest.mark.thorough
@settings(deadline=None, max_examples=30)
@given(
    total=st.integers(1, 300),
    group=st.integers(1, 100),
    most=st.integers(1, 120),
    low=st.integers(0, 300),
)
def test_a_filter_keeps_the_same_rows_however_the_file_is_cut(
    tmp_path_factory: pytest.TempPathFactory, total: int, group: int, most: int, low: int
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("cut")))
    store.put("a.parquet", encoded(numbered(total), group))
    splits = cut_splits(take_snapshot(Source(store.uri), "all"), most, 10**9)
    found = [row for s in splits for row in rows(store, s, text=f"n >= {low} and n < {low + 80}")]
    assert found == [(i, i) for i in range(total) if low <= i < low + 80]


def test_columns_come_in_the_order_of_the_request(store: Store) -> None:
    split = one_split(store, encoded(numbered(3)))
    assert rows(store, split, ("x", "n")) == [(i, i / 7, i) for i in range(3)]


def test_names_with_dots_and_nested_columns_are_read(store: Store) -> None:
    table = pa.table(
        {
            "id": [1, 2],
            "id.orig_h": ["a", "b"],
            "list": [[1, 2], []],
            "struct": [{"f": 1}, {"f": 2}],
        }
    )
    split = one_split(store, encoded(table))
    assert rows(store, split, ("id.orig_h",)) == [(0, "a"), (1, "b")]
    assert rows(store, split, ("id",)) == [(0, 1), (1, 2)]
    assert rows(store, split, ("list", "struct")) == [(0, [1, 2], {"f": 1}), (1, [], {"f": 2})]


CONN = pa.struct(
    [
        ("orig_h", pa.string()),
        ("resp", pa.struct([("h", pa.string()), ("p", pa.int64())])),
        ("seen", pa.list_(pa.int64())),
    ]
)
CONNS = [
    {"orig_h": "10.0.0.1", "resp": {"h": "10.0.0.9", "p": 53}, "seen": [1]},
    None,
    {"orig_h": None, "resp": None, "seen": None},
    {"orig_h": "10.0.0.2", "resp": {"h": None, "p": 80}, "seen": []},
]


def test_fields_of_structs_are_columns_by_their_paths_and_null_below_a_null_struct(
    store: Store,
) -> None:
    split = one_split(store, encoded(pa.table({"id": pa.array(CONNS, CONN), "n": range(4)}), 2))
    found = rows(store, split, ("id.resp.p", "n", "id.orig_h"))
    assert [port for _, port, _, _ in found] == [53, None, None, 80]
    assert [(n, m, host) for n, _, m, host in found] == [
        (0, 0, "10.0.0.1"),
        (1, 1, None),
        (2, 2, None),
        (3, 3, "10.0.0.2"),
    ]
    assert [row for _, row in rows(store, split, ("id.seen",))] == [[1], None, None, []]
    assert [row for _, row, _ in rows(store, split, ("id", "id.resp.h"))] == CONNS
    assert rows(store, split, ("n",), "id.resp.p >= 80 or id.orig_h == '10.0.0.1'") == [
        (0, 0),
        (3, 3),
    ]
    with open_split(store, split) as source:
        taken = source.select_rows(("id.orig_h", "id.resp"), np.array([0, 3]), 64)
        batches = list(source.read_rows(("id.orig_h",), 64, ("id.orig_h",)))
    assert taken["id.orig_h"].to_pylist() == ["10.0.0.1", "10.0.0.2"]
    assert taken["id.resp"].to_pylist() == [CONNS[0]["resp"], CONNS[3]["resp"]]  # type: ignore[index]
    assert [text for rows in batches for text in rows.batch.column(0).to_pylist()][3] == "10.0.0.2"


@pytest.mark.parametrize("first", ["id", "id.orig_h"])
def test_a_column_with_the_name_of_a_path_comes_before_the_field(store: Store, first: str) -> None:
    table = pa.table({"id": pa.array(CONNS, CONN), "id.orig_h": ["a", "b", "c", "d"]})
    table = table.select(sorted(table.column_names, reverse=first != "id"))
    split = one_split(store, encoded(table))
    assert [text for _, text in rows(store, split, ("id.orig_h",))] == ["a", "b", "c", "d"]
    assert rows(store, split, ("id.orig_h",), "id.orig_h == 'd'") == [(3, "d")]
    assert [row for _, row in rows(store, split, ("id",))] == CONNS


def test_a_path_of_two_fields_is_refused_when_it_is_needed(store: Store) -> None:
    a = pa.array([{"b.c": 1}], pa.struct([("b.c", pa.int64())]))
    ab = pa.array([{"c": 2}], pa.struct([("c", pa.int64())]))
    split = one_split(store, encoded(pa.table({"a": a, "a.b": ab, "n": [1]})))
    assert rows(store, split) == [(0, 1)]
    with pytest.raises(SchemaMismatch, match=r"expected one column 'a\.b\.c', found 2"):
        rows(store, split, ("a.b.c",))


def test_only_the_fields_of_a_struct_that_are_asked_for_are_fetched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[int, int]] = []
    fields = {
        "small": pa.array(range(1000)),
        "large": pa.array([f"{i:0>500}" for i in range(1000)]),
    }
    table = pa.table({"id": pa.StructArray.from_arrays(list(fields.values()), list(fields))})
    split = one_split(store, encoded(table, compression="none"))
    with open_split(store, split) as source:
        monkeypatch.setattr(source._file, "prefetch", lambda ranges: fetched.extend(ranges))
        source.prefetch(("id.small",))
    assert 0 < sum(stop - start for start, stop in fetched) < 20_000


def test_types_are_made_plain(store: Store) -> None:
    instant = datetime.datetime(2026, 11, 22, 1, 2, 3, 456789)
    table = pa.table(
        {
            "large": pa.array(["a", None], pa.large_string()),
            "blob": pa.array([b"a", b""], pa.large_binary()),
            "money": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(30, 2)),
            "proto": pa.array(["tcp", "udp"], pa.large_string()).dictionary_encode(),
            "naive": pa.array([instant, None], pa.timestamp("us")),
            "zone": pa.array([instant] * 2, pa.timestamp("ns", "Europe/Paris")),
            "small": pa.array([1, None], pa.uint8()),
        }
    )
    split = one_split(store, encoded(table))
    ((batch, _),) = read_rows(store, split, table.column_names, 10)
    assert dict(zip(batch.schema.names, batch.schema.types, strict=True)) == {
        "large": pa.string(),
        "blob": pa.binary(),
        "money": pa.decimal128(30, 2),
        "proto": pa.dictionary(pa.int32(), pa.string()),
        "naive": pa.timestamp("us"),
        "zone": pa.timestamp("ns", "Europe/Paris"),
        "small": pa.uint8(),
    }
    taken = take_snapshot(Source(f"{store.uri}/a.parquet"), "all")
    assert taken.schema.field("proto").type == pa.string()
    assert batch.column("money").to_pylist() == table.column("money").to_pylist()
    assert batch.column("proto").to_pylist() == ["tcp", "udp"]


def test_row_numbers_survive_a_filter_and_its_column_need_not_be_read(store: Store) -> None:
    split = one_split(store, encoded(numbered(100), 30))
    found = rows(store, split, ("name",), "n in (5, 29, 30, 99) and x > 1")
    assert found == [(n, f"row {n}") for n in (29, 30, 99)]


def test_row_groups_that_the_filter_excludes_are_not_fetched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = one_split(store, encoded(numbered(40_000), 10_000, use_dictionary=False))
    wanted = []
    for kind in (LocalFile, RangedFile):
        fetch = kind.prefetch

        def watched(self: Any, ranges: Any, fetch: Any = fetch) -> None:
            wanted.append(sum(stop - start for start, stop in ranges))
            fetch(self, ranges)

        monkeypatch.setattr(kind, "prefetch", watched)
    columns = []
    for text, count in ((None, 40_000), ("n >= 35000", 5_000), ("name == 'x'", 0)):
        wanted.clear()
        assert len(rows(store, split, ("n", "name", "x"), text)) == count
        columns.append(wanted[1])  # the first is the footer
    everything, last_group, nothing = columns
    assert last_group < everything / 3
    assert nothing == 0


def test_a_filter_on_floats_finds_nan_in_spite_of_statistics(store: Store) -> None:
    table = pa.table({"x": [1.0, 2.0, float("nan"), 3.0], "n": [0, 1, 2, 3]})
    split = one_split(store, encoded(table, 2))
    assert rows(store, split, ("n",), "not (x < 5)") == [(2, 2)]


def test_a_filter_that_does_not_fit_is_no_fault_of_the_file(store: Store) -> None:
    split = one_split(store, encoded(numbered(3)))
    with pytest.raises(Refusal, match="does not fit its columns") as refused:
        rows(store, split, text="name > 3")
    assert not isinstance(refused.value, UnreadableFile)
    with pytest.raises(Refusal, match="did you mean 'name'"):
        rows(store, split, text="nam == 'x'")


def test_a_missing_column_is_named_with_the_nearest(store: Store) -> None:
    split = one_split(store, encoded(numbered(3)))
    message = "a.parquet: there is no column 'nname'; did you mean 'name'"
    with pytest.raises(SchemaMismatch, match=message):
        rows(store, split, ("n", "nname"))


def test_a_column_that_is_there_twice_is_refused_when_it_is_needed(store: Store) -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "a", "b"])
    split = one_split(store, encoded(table))
    with pytest.raises(SchemaMismatch, match="expected one column 'a', found 2 of that name"):
        rows(store, split, ("a",))
    assert rows(store, split, ("b",)) == [(0, 3)]


def test_a_bit_flip_in_a_page_is_found_by_its_checksum(store: Store) -> None:
    data = bytearray(encoded(numbered(2000), compression="none", use_dictionary=False))
    data[len(data) // 3] ^= 0x10
    split = one_split(store, bytes(data))
    with pytest.raises(UnreadableFile, match="a page does not match its checksum") as bad:
        rows(store, split, ("n", "name", "x"))
    assert (bad.value.rule, bad.value.key) == ("checksum", "a.parquet")


def test_damage_without_checksums_is_found_where_the_page_cannot_be_decoded(store: Store) -> None:
    data = bytearray(encoded(numbered(2000), compression="zstd", write_page_checksum=False))
    data[40:400] = bytes(360)
    split = one_split(store, bytes(data))
    with pytest.raises(UnreadableFile) as bad:
        rows(store, split, ("n", "name", "x"))
    assert bad.value.rule in ("unreadable", "truncated")
    assert "a.parquet" in str(bad.value)


def test_a_file_with_its_middle_cut_out_is_unreadable(store: Store) -> None:
    data = encoded(numbered(20_000), compression="none", use_dictionary=False)
    store.put("a.parquet", data[: len(data) // 4] + data[-3000:])
    taken = take_snapshot(Source(store.uri), "all")
    (split,) = cut_splits(taken, 10**9, 10**9)
    with pytest.raises(UnreadableFile) as bad:
        rows(store, split, ("n", "name", "x"))
    assert bad.value.rule in ("truncated", "unreadable", "checksum")


def test_a_file_that_changed_since_the_snapshot_is_refused(store: Store) -> None:
    split = one_split(store, encoded(numbered(100)))
    store.put("a.parquet", encoded(numbered(100, 1)))
    with pytest.raises(ChangedSinceSnapshot, match=r"a\.parquet changed since the snapshot"):
        rows(store, split)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    split = one_split(store, encoded(numbered(200_000), 1_000, use_dictionary=False))
    batches = read_rows(store, split, ("n", "name"), 1_000)
    next(batches)
    (tmp_path / "a.parquet").write_bytes(encoded(numbered(200_000, 7), 1_000))  # in place
    with pytest.raises(ChangedSinceSnapshot):
        list(batches)


def test_a_file_that_vanished_is_named(store: Store) -> None:
    split = one_split(store, encoded(numbered(100)))
    store.delete("a.parquet")
    with pytest.raises(UnreadableFile, match="it was there when the snapshot was taken") as bad:
        rows(store, split)
    assert bad.value.rule == "vanished"


def test_a_large_row_group_is_read_without_fetching_it_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PREFETCH", 10_000)
    store.put("a.parquet", encoded(numbered(50_000), use_dictionary=False))
    taken = take_snapshot(Source(store.uri), "all")
    splits = cut_splits(taken, 20_000, 10**9)
    assert rows(store, splits[1])[:2] == [(16_666, 16_666), (16_667, 16_667)]
    assert sum(len(rows(store, split)) for split in splits) == 50_000


@settings(deadline=None, max_examples=30)
@given(
    group=st.integers(1, 100),
    most=st.integers(1, 120),
    chosen=st.sets(st.integers(0, 299), max_size=40),
)
def test_chosen_rows_are_taken_by_their_numbers(
    tmp_path_factory: pytest.TempPathFactory, group: int, most: int, chosen: set[int]
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("take")))
    store.put("a.parquet", encoded(numbered(300), group))
    found: list[int] = []
    for split in cut_splits(take_snapshot(Source(store.uri), "all"), most, 10**9):
        mine = [n for n in sorted(chosen) if split.first_row <= n < split.first_row + split.rows]
        if mine:
            with open_split(store, split) as opened:
                taken = opened.select_rows(("x", "n"), np.array(mine, np.int64), 7)
            assert taken.column_names == ["x", "n"]
            assert taken.column("x").to_pylist() == [n / 7 for n in mine]
            found.extend(taken.column("n").to_pylist())
    assert found == sorted(chosen)


def test_taking_reads_only_row_groups_that_hold_a_row(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = one_split(store, encoded(numbered(30_000), 10_000))
    fetched: list[tuple[int, int]] = []
    kind = LocalFile if isinstance(store.open_parquet("a.parquet"), LocalFile) else RangedFile
    monkeypatch.setattr(kind, "prefetch", lambda self, ranges: fetched.extend(ranges))
    with open_split(store, split) as opened:
        fetched.clear()  # of the footer
        opened.select_rows(("n",), np.array([5, 25_000], np.int64), 1_000)
    assert len(fetched) == 2


def test_texts_can_come_as_dictionaries(store: Store) -> None:
    table = pa.table({"s": ["a", None, "b", "a"], "n": [1, 2, 3, 4]})
    split = one_split(store, encoded(table))
    with open_split(store, split) as opened:
        ((batch, _),) = opened.read_rows(("s", "n"), 10, ("s",))
    assert pa.types.is_dictionary(batch.column("s").type)
    assert batch.to_pydict() == table.to_pydict()


def test_a_filter_works_on_a_column_that_is_read_as_a_dictionary(store: Store) -> None:
    split = one_split(store, encoded(pa.table({"s": ["a", "b", "a"]})))
    with open_split(store, split, 's == "a"') as opened:
        ((_, numbers),) = opened.read_rows(("s",), 10, ("s",))
    assert numbers.tolist() == [0, 2]


def test_keys_of_folders_are_columns_in_every_way_of_reading(store: Store) -> None:
    for region, rows in (("eu", numbered(6)), ("us", numbered(4, 6)), ("a%20b", numbered(6))):
        data = encoded(rows, row_group_size=2)
        store.put(f"region={region}/day=2026-11-20/name=x/a.parquet", data)
    taken = take_snapshot(Source(store.uri, "day"), "2026-11-20")
    assert taken.schema.names == ["n", "name", "x", "region"]
    assert taken.rejected == ()  # the same bytes in another region are other rows
    by_region: dict[str, list[int]] = {}
    for split in cut_splits(taken, 3, 10**9):
        with open_split(store, split, "region != 'us' and n > 0") as source:
            source.prefetch(["n", "region"])
            for batch, numbers in source.read_rows(["region", "n"], 2, dictionaries=["region"]):
                assert batch.schema.names == ["region", "n"]
                for row in batch.to_pylist():
                    by_region.setdefault(row["region"], []).append(row["n"])
                again = source.select_rows(["region"], numbers, 2)
                assert again["region"].to_pylist() == batch.column("region").to_pylist()
    assert by_region == {"eu": [1, 2, 3, 4, 5], "a b": [1, 2, 3, 4, 5]}
    (alone, *_) = (read_rows(store, split, ["region"], 9) for split in cut_splits(taken, 9, 10**9))
    assert [value for b, _ in alone for value in b.column(0).to_pylist()] == ["a b"] * 6


def test_a_null_key_of_a_folder_is_null(store: Store) -> None:
    store.put("region=__HIVE_DEFAULT_PARTITION__/a.parquet", encoded(numbered(2)))
    taken = take_snapshot(Source(store.uri), "all")
    (split,) = cut_splits(taken, 9, 10**9)
    ((batch, _),) = read_rows(store, split, ["region"], 9)
    assert batch.column(0).to_pylist() == [None, None]
