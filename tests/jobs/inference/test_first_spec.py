"""`init` on the tables that people have: the roles of a first spec, and that the spec fits."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.derived.derive import Deriver
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.lake.storage.opening import open_store
from jobs import check, init
from jobs.inference import names
from jobs.inference.roles import infer
from jobs.spec.spec import load
from jobs.training.options import build_filter
from tests.jobs.inference.tables import (
    EXPECTED,
    RNG,
    ROWS,
    START,
    Columns,
    amounts,
    kdd,
    machine_metrics,
    public_table,
    some,
    text_digits,
    zeek,
)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_first_spec_of_a_table_has_the_right_roles_and_fits(tmp_path: Path, name: str) -> None:
    columns, expected = EXPECTED[name]
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    path = tmp_path / "watch.yaml"
    path.write_text(init.init(str(tmp_path / "rows.parquet"), path))
    spec = load(path)
    assert {name: " ".join(column.role) for name, column in spec.columns.items()} == expected
    for commented in (True, False):  # also with the filter that stands in a comment
        report = check.run(path)
        assert report.ok, report.errors
        if commented:
            path.write_text(path.read_text().replace("  # filter:", "  filter:"))


def test_a_series_gets_a_window_proposed_that_fits(tmp_path: Path) -> None:
    several, one = machine_metrics(), machine_metrics()
    del one["machine"]
    for columns, entity in ((several, "entity: machine, "), (one, "")):
        pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
        path = tmp_path / "watch.yaml"
        text = init.init(str(tmp_path / "rows.parquet"), path)
        assert f"# window: {{{entity}length: 16, horizon: 1d}}" in text
        path.write_text(text.replace("# window:", "window:"))
        assert load(path).window is not None
        assert check.run(path).ok
    path.write_text(init.init(write_days(tmp_path / "flows", zeek(), "day=2026-01-01"), path))
    assert "# window" not in path.read_text()


def test_windows_follow_an_integer_time_within_the_machine_of_a_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for machine, level in (("a", 0.0), ("b", 100.0)):
            folder = tmp_path / "lake" / f"split={split}" / f"machine={machine}"
            folder.mkdir(parents=True)
            rows = {"t": np.arange(50), "cpu": level + np.arange(50) / 8}
            pq.write_table(pa.table(rows), folder / "a.parquet")
    path = tmp_path / "watch.yaml"
    text = init.init(str(tmp_path / "lake"), path)
    path.write_text(text.replace("# window:", "window:").replace("length: 16", "length: 2"))
    spec = load(path)
    assert spec.derivation is not None
    with Deriver(spec.derivation, spec.source(), str(tmp_path / "out")) as deriver:
        for day in ("train", "test"):
            deriver.derive(day)
    files = list((tmp_path / "out").rglob("*.parquet"))
    assert len(files) == 4
    for written in files:
        found = pq.ParquetFile(written).read()
        steps = [[step[0] for step in steps] for steps in found.column("window").to_pylist()]
        assert steps[1:] == [[cpu - 1 / 8, cpu] for cpu in found.column("cpu").to_pylist()[1:]]
        assert found.column("window_is_short").to_pylist() == [True] + [False] * 49


def write_days(folder: Path, columns: Columns, *days: str) -> str:
    for day in days:
        (folder / day).mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / day / "a.parquet")
    return str(folder)


def test_units_of_times_and_values_that_mean_normal_stand_in_the_spec() -> None:
    units = {
        unit: (START + np.arange(ROWS) * 97) * factor
        for unit, factor in (("s", 1), ("ms", 1_000), ("us", 10**6), ("ns", 10**9))
    }
    for unit, values in units.items():
        assert infer(pa.table({"event_time": values}))[0].options == {"unit": unit}
    found = {one.name: one for one in infer(pa.table(public_table()))}
    assert found[" Label"].options == {"normal": ["BENIGN"]}
    assert "'DDoS'" in found[" Label"].why
    assert infer(pa.table({"price": units["s"]}))[0].roles == ("numeric",)  # no name of a time


@pytest.mark.parametrize(
    ("table", "line"),
    [
        (public_table(), "filter: \"column(' Label') == 'BENIGN'\""),
        (kdd(), "filter: \"column('class') == 'normal.'\""),
        (text_digits(), "filter: \"label == '0'\""),
        ({"x": amounts(), "label": some(True, False)}, 'filter: "label == False"'),
    ],
)
def test_one_day_with_a_label_learns_from_its_normal_rows(
    tmp_path: Path, table: Columns, line: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    text = init.init(str(tmp_path / "rows.parquet"), Path("w.yaml"))
    assert f"\n  {line}" in text


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("zeek", None),  # times are drawn
        ("vpc_flow_logs", None),
        ("cloudtrail", "eventTime < '2026-01-01T04:00:00Z'"),
        ("card_transactions", "trans_date_trans_time < '2026-01-01T04:00:00Z' and is_fraud == 0"),
        ("machine_metrics", "t < 120 and label == 0"),
        ("credit_card", None),
    ],
)
def test_one_day_learns_from_its_earlier_rows_and_sees_none_of_the_later(
    tmp_path: Path, name: str, given: str | None
) -> None:
    table = pa.table(EXPECTED[name][0])
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=40)
    path = tmp_path / "watch.yaml"
    path.write_text(init.init(str(tmp_path / "rows.parquet"), path))
    spec = load(path)
    assert "There is one day: the earlier" in path.read_text()
    assert given in (None, spec.training.filter)
    time = spec.roles.time
    assert time is not None
    (split,) = cut_splits(take_snapshot(spec.source(), "all"), 10**6, 10**9)
    rows = read_rows(open_store(str(tmp_path)), split, (time,), ROWS, build_filter(spec))
    learned = [value for one in rows for value in one.batch.column(time).to_pylist()]
    in_order = sorted(table[time].to_pylist())
    earlier = sum(value <= max(learned) for value in in_order)
    assert 0.7 <= earlier / ROWS <= 0.85
    if spec.roles.label is None:
        assert len(learned) == earlier


def test_a_day_of_one_moment_is_not_divided(tmp_path: Path) -> None:
    columns = {"ts": pa.array([0] * ROWS, pa.timestamp("us")), "x": amounts()}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    text = init.init(str(tmp_path / "rows.parquet"), Path("w.yaml"))
    assert "there is one day: it is learned from and scored, anomalies included" in text


def test_one_day_without_a_label_says_that_it_learns_from_its_anomalies(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": amounts()}), tmp_path / "rows.parquet")
    text = init.init(str(tmp_path / "rows.parquet"), Path("w.yaml"))
    assert "there is one day: it is learned from and scored, anomalies included" in text
    assert "# uri: path/to/earlier/rows" in text


def test_a_weekday_is_a_feature_where_training_sees_each_of_them(tmp_path: Path) -> None:
    columns: Columns = {"at": pa.array(range(ROWS), pa.timestamp("s")), "x": amounts()}
    table = pa.table(columns)
    assert infer(table, training_days=1)[0].roles == ("time",)
    assert "a new weekday" in infer(table, training_days=1)[0].why
    assert infer(table, training_days=7)[0].roles == ("time", "timestamp")
    days = pa.table({"at": pa.array(np.arange(ROWS) * 3600, pa.timestamp("s")), "x": amounts()})
    assert infer(days)[0].roles == ("time", "timestamp")
    uri = write_days(tmp_path, columns, *(f"day=2026-01-0{n}" for n in range(1, 9)))
    assert "at: {role: [time, timestamp]}" in init.init(uri, Path("w.yaml")).replace("at:  ", "at:")


def test_folders_named_train_and_test_train_on_train(tmp_path: Path) -> None:
    keyed = write_days(tmp_path / "a", machine_metrics(), "split=train", "split=test")
    text = init.init(keyed, Path("w.yaml"))
    assert "partition: split" in text
    assert "\n  days: train" in text
    plain = write_days(tmp_path / "b", machine_metrics(), "train", "test")
    text = init.init(plain, Path("w.yaml"))
    assert f"\n  uri: {plain}/test\n" in text
    assert f"\n  uri: {plain}/train  #" in text


def test_what_follows_from_the_answer_or_made_the_set_is_no_feature() -> None:
    labels = np.arange(ROWS) % 3 == 0
    table = {
        "x": amounts(),
        "difficulty": RNG.integers(0, 21, ROWS),
        "in_test_21": some(0, 1),
        "is_probation": some(True, False),
        "train_id": [f"IC {n % 50}" for n in range(ROWS)],  # of a railway
        "alert_category": ["fan" if label else None for label in labels],
        "mostly_null": [None if n % 3 or n == 0 else "fan" for n in range(ROWS)],
        "told": labels.astype(float),  # as honest columns of tables do
        "label": labels.astype(int),
    }
    roles = {one.name: one.roles for one in infer(pa.table(table))}
    assert [roles[name] for name in ("difficulty", "in_test_21", "is_probation")] == [()] * 3
    assert roles["alert_category"] == ("kind",)
    assert roles["train_id"] == ("entity", "categorical")
    assert roles["mostly_null"] == ("categorical",)
    assert roles["told"] == ("numeric",)
    del table["label"]  # then nobody has judged the rows
    roles = {one.name: one.roles for one in infer(pa.table(table))}
    assert roles["difficulty"] == ("numeric",)
    assert roles["alert_category"] == ("categorical",)


def test_the_class_of_an_image_is_no_feature_where_the_label_is_made_from_it() -> None:
    digits = RNG.permutation(np.arange(ROWS) % 10)
    png = b"\x89PNG\r\n\x1a\n"
    table = {"image": [png] * ROWS, "digit": digits, "take": some(0, 1, 2)}
    for label in (digits > 0, RNG.integers(0, 2, ROWS)):
        roles = {one.name: one.roles for one in infer(pa.table({**table, "label": label}))}
        assert roles["digit"] == (("kind",) if label.dtype == bool else ("numeric",))
        assert roles["take"] == ("numeric",)


@pytest.mark.parametrize(("every", "learns"), [(4, "normal"), (50, "all")])
def test_days_with_many_anomalies_are_learned_from_without_them_and_open_the_gate(
    tmp_path: Path, every: int, learns: str
) -> None:
    columns: Columns = {"x": amounts(), "label": (np.arange(ROWS) % every == 0).astype(int)}
    uri = write_days(tmp_path / "lake", columns, "day=2026-01-01", "day=2026-01-02")
    path = tmp_path / "w.yaml"
    path.write_text(init.init(uri, path))
    spec = load(path)
    assert check.run(path).ok
    assert spec.training.filter == ("label == 0" if learns == "normal" else None)
    assert spec.detector.name == ("knn" if learns == "normal" else "isolation_forest")
    assert spec.gates.flag_rate == ((0.0, 0.5) if learns == "normal" else (0.0, 0.05))


def test_training_rows_without_the_label_are_not_filtered_by_it(tmp_path: Path) -> None:
    test: Columns = {"x": amounts(), "label": some(0, 1)}
    for name, columns in (("test", test), ("train", {"x": amounts()})):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    text = init.init(str(tmp_path), Path("w.yaml"))
    assert f"\n  uri: {tmp_path}/train.parquet" in text
    assert "\n  # filter:" in text


def test_a_column_that_divides_the_rows_says_which_to_learn_from(tmp_path: Path) -> None:
    columns = {"x": amounts(), "split": some("train", "test"), "label": some(0, 1)}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    path = tmp_path / "w.yaml"
    path.write_text(init.init(str(tmp_path / "rows.parquet"), path))
    spec = load(path)
    assert list(spec.columns) == ["x", "label"]
    assert spec.training.filter == "split == 'train' and label == 0"
    assert check.run(path).ok
    left = infer(pa.table({"x": amounts(), "split": some("left", "right")}))
    assert [one.roles for one in left] == [("numeric",), ("categorical",)]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("srcPort", {"src", "port"}),
        ("dstaddr", {"dst", "addr"}),
        ("id.orig_h", {"orig", "h"}),
        ("sourceIPAddress", {"source", "ip", "address"}),
    ],
)
def test_names_are_split_into_words(name: str, words: set[str]) -> None:
    assert names.split_words(name) == words


@pytest.mark.parametrize(
    "name", ["__index_level_0__", "Unnamed: 0", "unnamed: 0.1", "index", "row", "rownum", "line_no"]
)
def test_counters_of_rows_are_left_out_by_name_or_values(name: str) -> None:
    table = pa.table({name: RNG.permutation(ROWS), "x": np.arange(ROWS), "y": amounts()})
    by_name, by_values, amount = infer(table)
    assert by_name.why == by_values.why == "counts the rows, and says nothing of them"
    assert (by_name.roles, by_values.roles, amount.roles) == ((), (), ("numeric",))
