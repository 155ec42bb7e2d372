"""`init` guesses the roles of columns with reasons, and writes a spec that fits the data."""

import ipaddress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.input.partitions import Source
from jobs import check, init
from jobs.inference.detector import choose_detector
from jobs.inference.roles import Inferred, infer
from jobs.spec.spec import load
from models.refusal import Refusal
from models.selection.documented import DOCUMENTED
from tests.public_sets import DATA

ROWS = 400


def logs() -> dict[str, pa.Array | list[object]]:
    rng = np.random.default_rng(3)
    index = np.arange(ROWS)
    addresses = [str(ipaddress.ip_address(0x0A000000 + int(n))) for n in rng.integers(0, 90, ROWS)]
    return {
        "uid": [f"C{n:05}" for n in index],
        "ts": pa.array(index * 1_000_000, pa.timestamp("us", "UTC")),
        "seen_at": pa.array(index * 1_000_000, pa.timestamp("ms")),
        "src_ip": addresses,
        "dst_ip": addresses[::-1],
        "dst_port": rng.choice([53, 80, 443, 40_000], ROWS).tolist(),
        "protocol": rng.choice([6, 17], ROWS).tolist(),
        "state": pa.array(rng.choice(["SF", "S0", "REJ"], ROWS)).dictionary_encode(),
        "duration": rng.lognormal(3, 2.5, ROWS).tolist(),
        "score_rate": rng.uniform(0, 1, ROWS).tolist(),
        "is_local": rng.choice([0, 1], ROWS).tolist(),
        "encrypted": rng.choice([True, False], ROWS).tolist(),
        "user": [f"u{n}" for n in rng.integers(0, 150, ROWS)],
        "user_agent_text": [f"agent {n}" for n in index],
        "sensor_version": ["1.2"] * ROWS,
        "empty": pa.nulls(ROWS),
        "tags": [["a"]] * ROWS,
        "label": rng.choice([0, 1], ROWS, p=[0.9, 0.1]).tolist(),
        "attack_type": rng.choice(["none", "scan"], ROWS).tolist(),
        "attack_group": rng.choice(["none", "recon"], ROWS).tolist(),
    }


ROLES = {
    "uid": ("id",),
    "ts": ("time", "timestamp"),
    "seen_at": ("timestamp",),
    "src_ip": ("entity", "ip"),
    "dst_ip": ("ip",),
    "dst_port": ("port",),
    "protocol": ("categorical",),
    "state": ("categorical",),
    "duration": ("numeric",),
    "score_rate": ("numeric",),
    "is_local": ("boolean",),
    "encrypted": ("boolean",),
    "user": ("entity",),
    "user_agent_text": (),
    "sensor_version": (),
    "empty": (),
    "tags": ("sequence",),
    "label": ("label",),
    "attack_type": ("kind",),
    "attack_group": (),
}


@pytest.fixture(scope="module")
def guesses() -> dict[str, Inferred]:
    return {guess.name: guess for guess in infer(pa.table(logs()), training_days=7)}


@pytest.mark.parametrize("name", ROLES)
def test_the_role_of_a_column_is_guessed_from_its_name_type_and_values(
    guesses: dict[str, Inferred], name: str
) -> None:
    assert guesses[name].roles == ROLES[name], guesses[name].why


def test_guesses_come_with_options_and_reasons(guesses: dict[str, Inferred]) -> None:
    assert guesses["src_ip"].options == {"same_network_as": "dst_ip"}
    assert guesses["duration"].options == {"log1p": True}
    assert "skew" in guesses["duration"].why
    assert guesses["score_rate"].options == {}
    assert guesses["seen_at"].why == "timestamp[ms], without a time zone: read as UTC"
    assert guesses["sensor_version"].why == "constant in the sample"
    assert guesses["empty"].why == "all values are null, empty or not finite"
    assert guesses["attack_group"].why == "the name of an answer, which a detector must not see"


def test_the_words_of_a_column_may_be_joined_by_capitals() -> None:
    table = pa.table({"srcPort": [1, 2, 80, 443], "eventId": ["a", "b", "c", "d"]})
    assert [guess.roles for guess in infer(table)] == [("port",), ("id",)]


def test_a_text_of_many_values_is_a_category_where_the_most_frequent_cover_its_rows() -> None:
    rng = np.random.default_rng(0)
    long_tail = np.where(rng.random(5000) < 0.97, rng.integers(0, 40, 5000), rng.integers(0, 131))
    tail = [f"s{n}" for n in np.r_[long_tail, np.arange(131)]]
    even = [f"s{n}" for n in rng.integers(0, 300, len(tail))]
    few_rows = [f"s{n}" for n in range(68)]
    found = {c.name: c for c in infer(pa.table({"service": tail, "even": even}))}
    assert found["service"].roles == ("categorical",)
    assert "131 distinct" in found["service"].why
    assert "64 most frequent cover 9" in found["service"].why
    assert found["even"].roles == ()
    assert infer(pa.table({"service": few_rows}))[0].roles == ()


@pytest.mark.parametrize(
    ("name", "roles"),
    [
        ("ct_srv_src", ("numeric",)),
        ("ct_dst_src_ltm", ("numeric",)),
        ("src", ("numeric",)),
        ("bytes_orig", ("numeric",)),
        ("num_user", ("numeric",)),
        ("card", ("entity",)),
        ("customer_id", ("entity",)),
        ("terminal", ("entity",)),
    ],
)
def test_a_number_is_an_entity_by_the_name_of_who_acts_not_of_a_side_or_a_count(
    name: str, roles: tuple[str, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 500, 3000)
    assert infer(pa.table({name: values}))[0].roles == roles


def test_the_first_detector_is_the_documented_one_for_the_columns() -> None:
    assert choose_detector({"numeric", "categorical"})[0] == "isolation_forest"
    assert choose_detector({"numeric"}, normal=True)[0] == DOCUMENTED["table"]
    assert choose_detector({"time", "ip", "port", "numeric"})[0] == "autoencoder"
    assert choose_detector({"image", "numeric"})[0] == DOCUMENTED["images"]
    assert choose_detector({"audio"})[0] == DOCUMENTED["sounds"]
    assert choose_detector({"vector"})[0] == DOCUMENTED["vectors"]
    assert choose_detector({"text", "numeric"})[0] == DOCUMENTED["events"]
    assert choose_detector({"sequence"})[0] == DOCUMENTED["events"]
    assert choose_detector({"sequence"}, of_numbers=True)[0] == DOCUMENTED["series"]


def test_duplicate_columns_and_columns_named_like_those_of_flags_are_left_out() -> None:
    table = pa.table([["a", "b"], [1.0, 2.0], [3.0, 4.0], [5.0, 6.5]], ["run_id", "x", "x", "y"])
    guesses = {guess.name: guess for guess in infer(table)}
    assert guesses["run_id"].roles == ()
    assert guesses["x"].why == "2 columns have this name: rename all but one"
    assert guesses["y"].roles == ("numeric",)


def test_times_of_no_calendar_and_names_beyond_a_key_of_yaml_are_no_faults(tmp_path: Path) -> None:
    days = pa.array([2**31 - 1, 0] * 30, pa.int32()).cast(pa.date32())
    stamps = pa.array([2**53, 0] * 30).cast(pa.timestamp("ms"))
    spans = pa.array([2**60, 0] * 30).cast(pa.duration("s"))
    zoned = pa.array([0, 10**9] * 30).cast(pa.timestamp("us", "Mars/Olympus"))
    table = pa.table({"until": days, "seen": stamps, "for": spans, "at": zoned})
    guesses = infer(table.append_column("n" * 1000, pa.array(np.arange(60.0))))
    assert [guess.roles for guess in guesses] == [(), (), (), ("time",), ()]
    assert guesses[0].why == "date32[day], of which some are outside the years 1 to 9999"
    assert "the name has 1,000 characters" in guesses[4].why
    path = tmp_path / "spec.yaml"
    longest = pa.table({'"' * 500: [1.5, 2.5, 3.5]})
    sample = init.Sample(Source("data"), ("all",), 3, tuple(infer(longest)))
    path.write_text(init.render(sample, path))
    assert list(load(path).columns) == ['"' * 500]


def write_logs(folder: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        (folder / f"day={day}").mkdir(parents=True)
        pq.write_table(pa.table(logs()), folder / f"day={day}" / "part-0.parquet")


def test_the_spec_that_init_writes_loads_and_fits_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_logs(Path("data/flow logs"))
    text = init.init("data/flow logs", Path("flow logs.yaml"))
    Path("flow logs.yaml").write_text(text)
    spec = load("flow logs.yaml")
    assert (spec.name, spec.input.partition) == ("flow_logs", "day")
    assert spec.roles.id == ("uid",)
    assert "# user_agent_text:" in text
    assert f"from {ROWS} rows of\n# 2026-01-02, the newest of 2 days" in text
    report = check.run("flow logs.yaml")
    assert report.ok, report.errors


def test_a_spec_is_named_after_its_file(tmp_path: Path) -> None:
    write_logs(tmp_path / "data")
    assert "\nname: watch_9-to-5\n" in init.init(str(tmp_path / "data"), Path("specs/9-to-5.yaml"))


def test_init_refuses_data_without_a_feature(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Refusal, match="expected Parquet files"):
        init.init(str(empty), Path("watch.yaml"))
    pq.write_table(pa.table({"id": ["a", "b", "c"]}), empty / "a.parquet")
    with pytest.raises(Refusal, match="expected a column that a detector could use, found none"):
        init.init(str(empty), Path("watch.yaml"))


def test_init_reads_at_most_its_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "MOST_ROWS", 100)
    for part in range(6):
        pq.write_table(pa.table({"x": np.arange(1000.0)}), tmp_path / f"part-{part}.parquet")
    text = init.init(str(tmp_path), Path("watch.yaml"))
    assert "from 100 rows of" in text


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    for place in range(4, len(raw) - 800, 3):
        raw[place] ^= 0x5A
    path.write_bytes(raw)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_files_with_damaged_pages_are_passed_over_or_named(
    tmp_path: Path, compression: str
) -> None:
    for seed, name in enumerate(("a", "b")):
        table = pa.table({"x": np.random.default_rng(seed).normal(size=3000)})
        pq.write_table(table, tmp_path / f"{name}.parquet", compression=compression)
    damage(tmp_path / "a.parquet")
    assert "from 3,000 rows" in init.init(str(tmp_path), Path("watch.yaml"))
    damage(tmp_path / "b.parquet")
    with pytest.raises(Refusal, match=r"found: a\.parquet .*; b\.parquet"):
        init.init(str(tmp_path), Path("watch.yaml"))


def test_a_text_that_is_no_utf8_is_passed_over(tmp_path: Path) -> None:
    raw = pa.array([b"caf\xe9"] + [b"curl", b"wget"] * 100, pa.binary())
    texts = pa.StringArray.from_buffers(201, *raw.buffers()[1:])
    table = pa.table({"agent": texts, "x": np.random.default_rng(0).normal(size=201)})
    pq.write_table(table, tmp_path / "a.parquet")
    text = init.init(str(tmp_path), Path("watch.yaml"))
    assert "agent: {role: categorical}  # 2 distinct in 201 rows" in text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (pa.array(["a", "b", "c"] * 40), "expected int64, found string; store one type in all"),
        (pa.array(range(120), pa.timestamp("ms", "UTC")), "store one type in all files"),
    ],
)
def test_files_of_mixed_types_are_refused_with_what_to_do(
    tmp_path: Path, other: pa.Array, message: str
) -> None:
    amount = np.random.default_rng(0).normal(size=120)
    for name, column in (("a", pa.array(range(120))), ("b", other)):
        table = pa.table({"x": column, "amount": amount})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(Refusal, match=message):
        init.init(str(tmp_path), Path("watch.yaml"))


def test_a_column_that_a_file_lacks_is_left_out_and_one_that_it_has_twice_is_named(
    tmp_path: Path,
) -> None:
    amount, more = np.random.default_rng(0).normal(size=(2, 120))
    data = tmp_path / "data"
    data.mkdir()
    pq.write_table(pa.table({"amount": amount, "more": more}), data / "a.parquet")
    pq.write_table(pa.table({"amount": amount, "A": more}), data / "b.parquet")
    spec = tmp_path / "spec.yaml"
    spec.write_text(init.init(str(data), spec))
    assert list(load(spec).columns) == ["amount"]
    assert spec.read_text().count("{role: keep}  # 1 of the 2 files of the day lack it") == 2
    assert check.run(spec).ok
    twice = pa.table([amount, more, more], ["amount", "more", "more"])
    pq.write_table(twice, data / "b.parquet")
    with pytest.raises(Refusal, match=r"b.parquet: column 'more': .* found 2 columns of that name"):
        init.init(str(data), spec)


NAMES = st.text(st.characters(codec="utf-8"), max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=6))
def test_any_names_of_columns_give_a_spec_that_loads(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    """Names are the input's: quotes, colons, hashes and line ends cannot break the YAML."""
    columns = [np.arange(50) * 1.5 for _ in names] + [np.arange(50) * 2.5]
    table = pa.Table.from_arrays([pa.array(c) for c in columns], [*names, "amount"])
    sample = init.Sample(Source("data"), ("all",), 50, tuple(infer(table)))
    text = init.render(sample, Path("data.yaml"))
    path = tmp_path_factory.mktemp("specs") / "spec.yaml"
    path.write_text(text)
    found = set(load(path).columns)  # a `t` is no feature, but the time
    assert found <= {*names, "amount"}
    plain = {n for n in names if n.isalnum() and n.isascii() and names.count(n) == 1}
    assert plain - {"amount"} <= found | {n for n in plain if n.lower() in ROLES}


def test_field_names_in_types_cannot_break_out_of_a_comment(tmp_path: Path) -> None:
    kind = pa.struct([pa.field("a\ninput: {uri: evil}\u2028b", pa.int32())])
    table = pa.table({"x": pa.array([{}, {}], kind), "y": [1.5, 2.5]})
    path = tmp_path / "spec.yaml"
    sample = init.Sample(Source("data"), ("all",), 2, tuple(infer(table)))
    path.write_text(init.render(sample, path))
    assert load(path).input.uri == "data"


REAL: dict[str, dict[str, str | None]] = {
    "ctu50_zeek_flows": {"id": "uid", "time": "ts", "label": "label"},
    "cicids2017_flows": {"id": "source_row_id", "time": "timestamp", "label": "label"},
    "fraud_handbook": {"id": "transaction_id", "time": "tx_datetime", "label": "label"},
    "nsl_kdd/train.parquet": {"id": "row_id", "time": None, "label": "label"},
    "adbench/annthyroid.parquet": {"id": "row_id", "time": None, "label": "label"},
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_get_a_spec_that_loads_and_fits(tmp_path: Path, name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"the shared data set {name} is not there")
    (tmp_path / "spec.yaml").write_text(init.init(str(DATA / name), tmp_path / "spec.yaml"))
    roles = load(tmp_path / "spec.yaml").roles
    wanted = REAL[name]
    assert (*roles.id, roles.time, roles.label) == tuple(wanted.values())
    report = check.run(tmp_path / "spec.yaml")
    assert report.ok, report.errors


@pytest.mark.parametrize("empty", ["folder", "marker", "file", "broken"])
def test_the_newest_day_with_rows_is_looked_at(tmp_path: Path, empty: str) -> None:
    table = pa.table({"place": np.arange(ROWS) / 7, "port": [80, 443] * (ROWS // 2)})
    table = table.append_column("version", pa.array(["1.2"] * ROWS))  # left out, in a comment
    for day in ("2026-11-20", "2026-11-21", "2026-11-22"):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        if day != "2026-11-22":
            pq.write_table(table, folder / "a.parquet")
    match empty:
        case "marker":
            (folder / "_SUCCESS").touch()
        case "file":
            pq.write_table(pa.table({"other": pa.nulls(0)}), folder / "a.parquet")
        case "broken":
            (folder / "a.parquet").write_bytes(b"PAR1")
    spec = tmp_path / "watch.yaml"
    text = init.init(str(tmp_path / "in"), spec)
    note = "day 2026-11-22 has no rows that can be read; 2026-11-21 is the newest day with rows"
    assert f"# {note}." in text
    assert (
        f"# Written by `python -m jobs init` from {ROWS} rows of\n# 2026-11-21, the newest" in text
    )
    assert "days: null  # all but the newest" in text
    spec.write_text(text)
    report = check.run(spec)
    assert report.ok
    assert not any("does not name" in warning for warning in report.warnings)
    assert any(note in warning for warning in report.warnings)
    assert "day 2026-11-21 of 3" in report.inputs[0]


def test_the_only_day_with_rows_is_learned_from_and_said_to_be_scored(tmp_path: Path) -> None:
    for day in ("2026-11-20", "2026-11-21"):
        (tmp_path / f"day={day}").mkdir()
    table = pa.table({"place": np.arange(ROWS) / 7})
    pq.write_table(table, tmp_path / "day=2026-11-20" / "a.parquet")
    text = init.init(str(tmp_path), tmp_path / "watch.yaml")
    assert "there is one day: it is learned from and scored, anomalies included" in text
