"""Derived days: every row once, exactly as of its time, reused when fresh and never when stale."""

import os
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.derivation_input import DerivationInput
from cluster.lake.derived.derive import Deriver, remove_before
from cluster.lake.derived.history import DAY, History
from cluster.lake.derived.windows import Window
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import cut_splits, plan_tasks
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models.refusal import Refusal
from tests.cluster.lake.derived import history_oracle as oracle
from tests.cluster.lake.derived.history_oracle import Row
from tests.cluster.lake.parquet_files import encoded

FIRST = date(2026, 1, 1)
START = 1_767_225_600 * 1_000_000  # FIRST in UTC
DAYS = [(FIRST + timedelta(days=n)).isoformat() for n in range(5)]
DERIVATION = Derivation(
    columns=("n", "time", "entity", "amount", "label"),
    time="time",
    label="label",
    history=(
        History("entity", ("12h", "1d"), of="amount"),
        History("entity", ("1d",), delay="1d", labels=True),
    ),
    window=Window("entity", 4, ("amount",), "12h"),
)


def drawn(day: int, rows: int = 40) -> list[Row]:
    """Rows of one day in any order, with ties, from a seed."""
    rng = np.random.default_rng(day)
    times = START + day * DAY + rng.integers(0, 24, rows) * (DAY // 24)
    return [
        Row(
            int(time) if rng.random() > 0.05 else None,
            str(rng.choice(["a", "b", "c"])) if rng.random() > 0.05 else None,
            float(rng.integers(0, 40)) / 4,
            None,
            int(rng.random() < 0.2),
        )
        for time in times
    ]


def table(rows: list[Row], first: int = 0) -> pa.Table:
    return pa.table(
        {
            "n": pa.array(range(first, first + len(rows)), pa.int64()),
            "time": pa.array([r.time for r in rows], pa.int64()).cast(pa.timestamp("us", "UTC")),
            "entity": pa.array([r.entity for r in rows], pa.string()).dictionary_encode(),
            "amount": pa.array([r.amount for r in rows], pa.float64()),
            "label": pa.array([r.label for r in rows], pa.int8()),
        }
    )


def put(store: Store, day: str, rows: list[Row]) -> None:
    """A day in two files of several row groups."""
    for part, (first, stop) in enumerate(((0, 25), (25, len(rows)))):
        data = encoded(table(rows[first:stop], first), row_group_size=10)
        store.put(f"in/day={day}/part-{part}.parquet", data)


@pytest.fixture
def lake(tmp_path: Path) -> Store:
    """Five days under `in`."""
    return filled(open_store(str(tmp_path / "lake")))


@pytest.fixture
def each_lake(store: Store) -> Store:
    """The same, on a local folder and on S3."""
    return filled(store)


def filled(store: Store) -> Store:
    for number, day in enumerate(DAYS):
        put(store, day, drawn(number))
    return store


def deriver(lake: Store, derivation: Derivation = DERIVATION) -> Deriver:
    return Deriver(derivation, Source(lake.child("in").uri, "day"), lake.child("out").uri)


def derived(lake: Store, day: str, derivation: Derivation = DERIVATION) -> Snapshot:
    with deriver(lake, derivation) as made:
        if not made.is_derived(day):
            made.derive(day)
        return made.take_snapshot(day)


def read(taken: Snapshot) -> pa.Table:
    store, names = open_store(taken.uri), taken.schema.names
    splits = cut_splits(taken, 15, 10**9)
    return pa.Table.from_batches(
        [rows.batch for split in splits for rows in read_rows(store, split, names, 7)]
    )


def test_a_derived_day_has_every_row_and_agrees_with_the_oracle(each_lake: Store) -> None:
    taken = derived(each_lake, DAYS[3])
    found = read(taken)
    rows = drawn(1) + drawn(2) + drawn(3)  # the look-back is two days
    assert taken.rows == found.num_rows == 40
    assert found.column("n").to_pylist() == list(range(40))
    for column in DERIVATION.derived:
        for at, value in enumerate(found.column(column.name).to_pylist(), 80):
            assert value == pytest.approx(oracle.history(rows, at, column)), (column, at)
    assert DERIVATION.window is not None
    for at, steps in enumerate(found.column("window").to_pylist(), 80):
        expected, short = oracle.window(rows, at, DERIVATION.window)
        assert [step[0] for step in steps] == pytest.approx(expected, nan_ok=True)
        assert found.column("window_is_short")[at - 80].as_py() == short


def test_days_that_are_integers_are_looked_back_on_as_dates_are(lake: Store) -> None:
    expected = read(derived(lake, DAYS[3]))
    for number, day in enumerate(("8", "9", "10", "11")):
        for part in range(2):
            data = lake.read(f"in/day={DAYS[number]}/part-{part}.parquet")
            lake.put(f"own/day={day}/part-{part}.parquet", data)
    source = Source(lake.child("own").uri, "day")
    with Deriver(DERIVATION, source, lake.child("out").uri) as made:
        made.derive("11")
        found = read(made.take_snapshot("11"))
    assert repr(found.to_pydict()) == repr(expected.to_pydict())


def test_a_table_is_looked_back_on_as_its_files_are(lake: Store, tmp_path: Path) -> None:
    """Rows that were deleted from an earlier day are in no history and in no window."""
    expected = read(derived(lake, DAYS[3]))
    folder = tmp_path / "table"
    for number, day in enumerate(DAYS):
        rows = table(drawn(number))
        rows = rows.append_column("day", pa.array([day] * rows.num_rows))
        write_deltalake(folder, pa.concat_tables([rows] * 2), partition_by=["day"], mode="append")
        write_deltalake(folder, rows, mode="overwrite", predicate=f"day = '{day}'")
    with Deriver(DERIVATION, Source(str(folder), "day"), str(tmp_path / "out")) as made:
        made.derive(DAYS[3])
        taken = made.take_snapshot(DAYS[3])
    assert taken.version == 2 * len(DAYS) - 1
    found = read(taken)
    assert repr(found.to_pydict()) == repr(expected.to_pydict())


def test_a_derived_file_names_the_file_and_the_row_that_it_comes_from(lake: Store) -> None:
    keys = [file.key.split("/", 1)[1] for file in derived(lake, DAYS[3]).files]
    assert keys == [f"day={DAYS[3]}/part-0-0.parquet", f"day={DAYS[3]}/part-1-0.parquet"]


def test_derived_rows_are_reused_and_equal_inputs_give_equal_bytes(
    lake: Store, tmp_path: Path
) -> None:
    first = derived(lake, DAYS[3])
    assert derived(lake, DAYS[3]) == first  # the very files
    again = Deriver(DERIVATION, Source(lake.child("in").uri, "day"), str(tmp_path / "elsewhere"))
    with again:
        again.derive(DAYS[3])
        second = again.take_snapshot(DAYS[3])
    assert second.digest == first.digest
    for one, other in zip(first.files, second.files, strict=True):
        assert open_store(first.uri).read(one.key) == again.store.read(other.key)


@pytest.mark.thorough
def test_the_order_in_which_days_are_derived_makes_no_difference(
    lake: Store, tmp_path: Path
) -> None:
    # Rows that stand in the folder of another day, at the time of many others: all ties.
    for day in DAYS[1:4]:
        put(lake, day, [Row(START + 2 * DAY, "a", float(n)) for n in range(40)])
    alone = [repr(read(derived(lake, day)).to_pydict()) for day in DAYS]
    elsewhere = Deriver(
        DERIVATION, Source(lake.child("in").uri, "day"), str(tmp_path / "elsewhere")
    )
    with elsewhere as made:
        for day in (DAYS[3], DAYS[1], DAYS[2], DAYS[4], DAYS[0]):
            made.derive(day)
        together = [repr(read(made.take_snapshot(day)).to_pydict()) for day in DAYS]
    assert together == alone


def test_a_changed_day_is_derived_anew_and_so_are_those_that_look_back_on_it(lake: Store) -> None:
    before = {day: derived(lake, day).digest for day in DAYS}
    put(lake, DAYS[1], drawn(1)[:-1])
    with deriver(lake) as made:
        fresh = [day for day in DAYS if made.is_derived(day)]
    assert fresh == [DAYS[0], DAYS[4]]  # before it, and past its reach of two days
    assert derived(lake, DAYS[4]).digest == before[DAYS[4]]
    assert derived(lake, DAYS[3]).digest != before[DAYS[3]]


def test_later_rows_change_nothing(lake: Store) -> None:
    rows = drawn(3)
    noon = START + 3 * DAY + DAY // 2
    early = [at for at, row in enumerate(rows) if row.time is None or row.time < noon]
    before = read(derived(lake, DAYS[3])).take(early)
    later = [row if at in early else Row(noon, "a", 1e9, None, 1) for at, row in enumerate(rows)]
    put(lake, DAYS[3], later)
    put(lake, DAYS[4], [Row(START + 3 * DAY, "a", 1e9, None, 1)] * 40)
    after = read(derived(lake, DAYS[3])).take(early)
    assert repr(after.to_pydict()) == repr(before.to_pydict())  # repr, as NaN is not NaN


def test_a_crash_before_the_marker_leaves_a_day_that_is_derived_again(each_lake: Store) -> None:
    first = derived(each_lake, DAYS[3])
    out = each_lake.child("out")
    (marker,) = (o.key for o in out.list() if o.key.endswith("_derived.json"))
    out.delete(marker)
    out.delete(first.files[1].key)
    with deriver(each_lake) as made:
        assert not made.is_derived(DAYS[3])
    second = derived(each_lake, DAYS[3])
    assert second.digest == first.digest
    assert second.files[0] == first.files[0]  # the file that was whole is left as it is
    assert [file.size for file in second.files] == [file.size for file in first.files]


def test_a_derived_file_that_lost_rows_is_refused(lake: Store) -> None:
    taken = derived(lake, DAYS[3])
    store = open_store(taken.uri)
    whole = pq.read_table(pa.BufferReader(store.read(taken.files[0].key)))
    store.put(taken.files[0].key, encoded(whole.slice(1)))
    with pytest.raises(Refusal, match="expected 40 derived rows, found 39"):
        derived(lake, DAYS[3])


def test_filtered_rows_are_carried_over_but_are_in_no_history(lake: Store) -> None:
    row_filter = "entity != 'a'"
    history = (History("entity", ("1d",)),)
    derivation = Derivation(DERIVATION.columns, "time", filter=row_filter, history=history)
    found = read(derived(lake, DAYS[3], derivation))
    assert found.num_rows == 40
    for entity, count in zip(
        *(found.column(name).to_pylist() for name in ("entity", "entity_count_1d")), strict=True
    ):
        assert entity != "a" or count is None


def test_a_column_of_another_type_on_an_earlier_day_is_refused(lake: Store) -> None:
    other = table(drawn(2)).set_column(3, "amount", pa.array(["text"] * 40))
    lake.put(f"in/day={DAYS[2]}/part-0.parquet", encoded(other))
    with pytest.raises(Refusal, match="column 'amount': expected double, found string"):
        derived(lake, DAYS[3])


@pytest.mark.parametrize(
    ("days", "earlier"),
    [
        (("2026-02-27", "2026-02-28", "2026-03-01"), ("2026-02-28",)),
        (("8", "9", "10"), ("9",)),
        (("test", "train"), ()),
    ],
)
def test_days_are_looked_back_on_in_their_own_order(
    lake: Store, days: tuple[str, ...], earlier: tuple[str, ...]
) -> None:
    for number, day in enumerate(days):
        lake.put(f"own/day={day}/part-0.parquet", encoded(table(drawn(number))))
    made = DerivationInput(DERIVATION, Source(lake.child("own").uri, "day"))
    assert made.days_before(days[-1], 1) == earlier


def test_an_input_without_partitions_is_one_day(lake: Store) -> None:
    rows = drawn(0) + drawn(1)
    lake.put("one/rows.parquet", encoded(table(rows)))
    uri, out = lake.child("one").uri, lake.child("out").uri
    with Deriver(DERIVATION, Source(uri), out) as made:
        made.derive("all")
        found = read(made.take_snapshot("all"))
    column = DERIVATION.derived[0]
    expected = [oracle.history(rows, at, column) for at in range(len(rows))]
    assert found.column(column.name).to_pylist() == expected


def test_a_file_without_rows_is_derived_as_one(lake: Store) -> None:
    for part in range(2):
        lake.put(f"in/day={DAYS[3]}/part-{part}.parquet", encoded(table([])))
    taken = derived(lake, DAYS[3])
    assert taken.rows == 0
    assert "entity_count_1d" in taken.schema.names


@pytest.mark.parametrize(
    ("spoilt", "rows"), [(DAYS[2], 40), pytest.param(DAYS[3], 25, marks=pytest.mark.thorough)]
)
def test_a_file_whose_page_is_damaged_is_set_aside(lake: Store, spoilt: str, rows: int) -> None:
    """Like a file with a damaged footer: the rest of its day is still used."""
    key = f"day={spoilt}/part-1.parquet"
    where = lake.child("in")
    data = bytearray(encoded(table(drawn(DAYS.index(spoilt))[25:], 25), use_dictionary=False))
    amounts = pq.read_metadata(pa.BufferReader(bytes(data))).row_group(0).column(3)
    data[amounts.data_page_offset + amounts.total_compressed_size - 1] ^= 0x10
    lake.put(f"in/{key}", bytes(data))
    with deriver(lake) as made:
        assert made.input.snapshot(spoilt).rejected == ()  # nothing is wrong with its footer
        made.derive(DAYS[3])
        assert [(file.key, file.rule) for file in made.input.snapshot(spoilt).rejected] == [
            (key, "checksum")
        ]
        taken = made.take_snapshot(DAYS[3])
    where.delete(key)
    assert taken.rows == rows
    expected = read(derived(lake, DAYS[3]))  # str: a window is filled with NaN, which is no equal
    assert str(read(taken).to_pylist()) == str(expected.to_pylist())


def test_old_derived_days_are_removed_whole_and_derived_again(lake: Store) -> None:
    first = derived(lake, DAYS[3])
    out, later = lake.child("out"), datetime.now(UTC) + timedelta(hours=1)
    assert remove_before(out, later - timedelta(hours=2), dry_run=False) == []
    keys = remove_before(out, later, dry_run=True)
    assert keys[0].endswith("_derived.json")
    assert set(keys[1:]) == {file.key for file in first.files}
    remove_before(out, later, dry_run=False)
    assert out.list() == ()
    assert derived(lake, DAYS[3]).digest == first.digest


def test_a_plan_of_derived_rows_holds_for_the_same_rows_derived_anew(each_lake: Store) -> None:
    """Also where its files have other versions, as after a vacuum between kill and rerun."""
    first, out = derived(each_lake, DAYS[3]), each_lake.child("out")
    versions = {found.key: found.version for found in out.list()}
    before = read(first)
    out.delete_all("")
    again = derived(each_lake, DAYS[3])
    # An object of S3 with the same bytes has the same version.
    assert each_lake.remote or versions != {found.key: found.version for found in out.list()}
    assert plan_tasks(again) == plan_tasks(first)
    assert str(read(first).to_pylist()) == str(before.to_pylist())


def test_derived_rows_that_are_used_are_not_old(lake: Store) -> None:
    taken, out = derived(lake, DAYS[3]), lake.child("out")
    for found in out.list():
        os.utime(Path(out.uri, found.key), (0, 0))
    time = datetime.now(UTC) - timedelta(hours=1)
    assert len(remove_before(out, time, dry_run=True)) == len(taken.files) + 1
    assert derived(lake, DAYS[3]) == taken
    assert remove_before(out, time, dry_run=True) == []


def test_histories_and_windows_are_the_same_in_other_types(lake: Store, tmp_path: Path) -> None:
    other = open_store(str(tmp_path / "other"))
    for number, day in enumerate(DAYS):
        rows = table(drawn(number))
        columns = {
            "n": rows.column("n").cast(pa.decimal128(38, 0)),
            "time": rows.column("time").cast(pa.int64()),
            "entity": rows.column("entity").cast(pa.large_string()),
            "amount": rows.column("amount").cast(pa.decimal128(10, 2)),
            "label": rows.column("label").cast(pa.float64()),
        }
        first, second = pa.table(columns)[:25], pa.table(columns)[25:]
        amount = second.schema.get_field_index("amount")
        second = second.set_column(amount, "amount", second.column("amount").cast(pa.float64()))
        other.put(f"in/day={day}/part-0.parquet", encoded(first))
        other.put(f"in/day={day}/part-1.parquet", encoded(second))
    derivation = replace(DERIVATION, time_unit="us", exact=("n", "time", "entity"))
    found, wanted = read(derived(other, DAYS[3], derivation)), read(derived(lake, DAYS[3]))
    for name in (*DERIVATION.names, "amount"):
        assert str(found.column(name).to_pylist()) == str(wanted.column(name).to_pylist())
    assert [int(n) for n in found.column("n").to_pylist()] == wanted.column("n").to_pylist()
