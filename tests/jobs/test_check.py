"""`check` names every difference between a spec and the data, with the line of the spec."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.struct_columns import add_struct_fields
from jobs.check import agree_on_schema, check, run
from jobs.spec.spec import Spec, load
from models.refusal import Refusal
from tests.public_sets import DATA, ROOT

REAL = ("nsl_kdd", "cicids2017_flows", "ctu50_zeek_flows", "fraud_handbook")

SPEC = """\
name: flows
input: {uri: flows, partition: day, filter: "bytes > 0"}
columns:
  uid:      {role: id}
  ts:       {role: [time, timestamp]}
  src_ip:   {role: [entity, ip]}
  port:     {role: port}
  duration: {role: numeric}
  bytes:    {role: numeric}
  proto:    {role: categorical}
  local:    {role: boolean}
  label:    {role: label}
detector: {name: autoencoder}
training: {filter: "label == 0"}
threshold: {policy: quantile}
output: {uri: out}
"""

FIELDS = {
    "uid": pa.string(),
    "ts": pa.timestamp("us", "UTC"),
    "src_ip": pa.string(),
    "port": pa.int32(),
    "duration": pa.float64(),
    "bytes": pa.int64(),
    "proto": pa.string(),
    "local": pa.bool_(),
    "label": pa.int8(),
}
ROW = {"uid": ["a"], "ts": [0], "src_ip": ["10.0.0.1"], "port": [80], "duration": [0.5]}
ROW |= {"bytes": [10], "proto": ["tcp"], "local": [True], "label": [0]}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.chdir(tmp_path)
    Path("flows.yaml").write_text(SPEC)
    return load("flows.yaml")


def schema(**changes: pa.DataType | None) -> pa.Schema:
    fields = {name: kind for name, kind in (FIELDS | changes).items() if kind is not None}
    return pa.schema(list(fields.items()))


def write_day(day: str, table: pa.Table, uri: str = "flows") -> None:
    folder = Path(uri) / f"day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "part-0.parquet")


def test_a_spec_that_fits_the_data_has_no_problems(spec: Spec) -> None:
    report = check(spec, schema(), training=True)
    assert report.ok
    assert (report.errors, report.warnings) == ((), ())
    report.refuse()


def test_the_order_of_the_columns_and_the_encoding_of_texts_do_not_matter(spec: Spec) -> None:
    other = schema(proto=pa.dictionary(pa.int32(), pa.string()), uid=pa.large_string())
    assert check(spec, pa.schema(list(other)[::-1]), training=True).ok


def test_a_missing_column_is_named_with_its_line_and_the_nearest_name(spec: Spec) -> None:
    report = check(spec, schema(duration=None, durration=pa.float64()))
    (message,) = report.errors
    start = "flows.yaml:8: column 'duration' is not in the input; did you mean 'durration'?"
    assert message.startswith(start)
    assert "The input has 9 columns: uid, ts, src_ip," in message
    with pytest.raises(Refusal, match=r"flows\.yaml:8"):
        report.refuse()


WRONG_TYPES = [
    ("duration", pa.string(), "8: column 'duration' as numeric: expected a number"),
    ("port", pa.string(), "7: column 'port' as port: expected a whole number, found string"),
    ("src_ip", pa.int32(), "6: column 'src_ip' as entity, ip: expected text, found int32"),
    ("ts", pa.int64(), "5: column 'ts' as time, timestamp: expected a timestamp, a date32"),
    ("proto", pa.decimal128(9, 2), "10: column 'proto' as categorical: expected text, a whole"),
    ("local", pa.string(), "11: column 'local' as boolean: expected a boolean"),
    ("label", pa.string(), "12: column 'label' as label: expected 0 or 1"),
    ("uid", pa.list_(pa.string()), "4: column 'uid' as id: expected a plain value"),
    ("proto", pa.null(), "10: column 'proto' has no type: every value is null"),
]


@pytest.mark.parametrize(("name", "kind", "message"), WRONG_TYPES)
def test_a_column_of_the_wrong_type_is_named_with_what_its_role_expects(
    spec: Spec, name: str, kind: pa.DataType, message: str
) -> None:
    (error,) = check(spec, schema(**{name: kind}), training=True).errors
    assert error.startswith(f"flows.yaml:{message}")


def test_all_wrong_columns_are_listed(spec: Spec) -> None:
    wrong = schema(duration=None, port=pa.string(), proto=pa.null())
    lines = [error.split(": ")[0] for error in check(spec, wrong, training=True).errors]
    assert lines == ["flows.yaml:7", "flows.yaml:8", "flows.yaml:10"]


def test_a_duplicate_column_is_refused(spec: Spec) -> None:
    twice = schema().append(pa.field("bytes", pa.int64()))
    (error,) = check(spec, twice).errors
    assert error.startswith("flows.yaml:9: column 'bytes': expected once, found 2 columns")


def test_extra_columns_are_a_warning(spec: Spec) -> None:
    report = check(spec, schema(note=pa.string(), user=pa.string()))
    assert report.ok
    (warning,) = report.warnings
    assert (
        "flows.yaml:3: the input has 2 columns that the spec does not name: note, user" in warning
    )


def test_columns_in_comments_are_named(spec: Spec) -> None:
    """As `init` writes those that it leaves out."""
    left_out = '  # note: {role: keep}  # text\n  # "a: b": {role: keep}\n  # no: {role: keep}\n'
    Path("flows.yaml").write_text(SPEC.replace("detector:", f"{left_out}detector:"))
    known = schema(**{"note": pa.string(), "a: b": pa.int8(), "no": pa.int8()})
    assert check(load("flows.yaml"), known).warnings == ()
    (warning,) = check(load("flows.yaml"), known.append(pa.field("user", pa.string()))).warnings
    assert "1 columns that the spec does not name: user;" in warning


def test_a_struct_whose_field_is_hidden_is_not_carried_whole(spec: Spec) -> None:
    columns = "  user: {role: keep}\n  user.mail: {role: keep, sensitive: hmac}\n"
    Path("flows.yaml").write_text(SPEC.replace("detector:", f"{columns}detector:"))
    user = pa.struct([("mail", pa.string()), ("age", pa.int8())])
    wanted = add_struct_fields(schema(user=user, host=pa.struct([("os", pa.string())])))
    report = check(load("flows.yaml"), wanted)
    (error,) = report.errors
    assert error.startswith("flows.yaml:13: column 'user' would show its field 'user.mail'")
    (warning,) = report.warnings
    assert "1 columns that the spec does not name: host.os;" in warning


def test_a_time_without_a_zone_is_a_warning(spec: Spec) -> None:
    report = check(spec, schema(ts=pa.timestamp("ns")))
    assert report.ok
    (warning,) = report.warnings
    assert warning == "flows.yaml:5: column 'ts' has no time zone; it is read as UTC"


def test_a_spec_without_an_id_gets_a_warning(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("role: id", "role: keep"))
    (warning,) = check(load("flows.yaml"), schema()).warnings
    assert warning.startswith("flows.yaml:3: no column has the role id")


def test_a_filter_on_a_missing_column_is_refused_with_its_line(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("label == 0", "lable == 0"))
    wrong = load("flows.yaml")
    (error,) = check(wrong, schema(), training=True).errors
    assert error.startswith("flows.yaml:14: training.filter: ")
    assert "'label'" in error
    with pytest.raises(Refusal, match=r"training\.filter"):
        check(wrong, schema(), training=True).refuse()
    assert check(wrong, schema()).ok  # scoring does not read the training filter


def test_a_filter_compares_a_time_as_its_role_says(spec: Spec) -> None:
    text = SPEC.replace("bytes > 0", "ts >= '2026-01-01'").replace("timestamp]", "timestamp], UNIT")
    for kind, unit in ((pa.int64(), "unit: s"), (pa.string(), ""), (pa.timestamp("us"), "")):
        Path("flows.yaml").write_text(text.replace("UNIT", unit))
        assert check(load("flows.yaml"), schema(ts=kind)).ok
        Path("flows.yaml").write_text(text.replace("UNIT", unit).replace("2026-01-01", "soon"))
        (error,) = check(load("flows.yaml"), schema(ts=kind)).errors
        assert error.startswith("flows.yaml:2: input.filter: ")
        assert "a time is compared with 'soon'; expected ISO 8601" in error


def test_a_filter_that_does_not_fit_its_column_is_refused_with_its_line(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("bytes > 0", "proto > 0"))
    (error,) = check(load("flows.yaml"), schema()).errors
    assert error.startswith("flows.yaml:2: input.filter: ")
    assert "(proto is string)" in error


def test_run_checks_the_newest_day(spec: Spec) -> None:
    good = pa.table(ROW, schema=schema())
    write_day("2026-01-01", good.drop_columns("bytes"))
    write_day("2026-01-02", good)
    report = run("flows.yaml")
    assert report.ok, report.errors
    assert report.inputs == ("flows, day 2026-01-02 of 2: 1 files, 1 rows",)
    write_day("2026-01-03", good.drop_columns("bytes"))
    assert "column 'bytes' is not in the input" in run("flows.yaml").errors[0]


def test_run_checks_separate_training_data(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("training: {", "training: {uri: past, "))
    good = pa.table(ROW, schema=schema())
    write_day("2026-01-02", good)
    write_day("2025-01-02", good.drop_columns("label"), "past")
    report = run("flows.yaml")
    assert any("'label'" in error for error in report.errors)
    assert [line.split(",")[0] for line in report.inputs] == ["flows", "past"]


def test_run_refuses_training_days_that_do_not_exist(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("training: {", "training: {days: 2025-01-01, "))
    write_day("2026-01-02", pa.table(ROW, schema=schema()))
    (error,) = run("flows.yaml").errors
    assert error == (
        "flows.yaml:14: training.days: flows has no day 2025-01-01: its only day is 2026-01-02"
    )


def test_run_names_the_place_without_data(spec: Spec) -> None:
    (error,) = run("flows.yaml").errors
    assert error.startswith("flows.yaml:2: input.uri: ")


def test_run_warns_of_unreadable_files(spec: Spec) -> None:
    write_day("2026-01-02", pa.table(ROW, schema=schema()))
    Path("flows/day=2026-01-02/part-1.parquet").write_text("uid,ts\n1,2\n")
    report = run("flows.yaml")
    assert report.ok
    assert any("part-1.parquet" in warning for warning in report.warnings)
    Path("flows/day=2026-01-02/part-0.parquet").write_bytes(b"")
    assert "expected a readable Parquet file" in run("flows.yaml").errors[0]


def test_run_refuses_a_file_whose_column_has_another_type(spec: Spec) -> None:
    table = pa.table(ROW, schema=schema())
    write_day("2026-01-02", table)
    text = table.set_column(table.schema.get_field_index("bytes"), "bytes", pa.array(["10"]))
    pq.write_table(text, "flows/day=2026-01-02/part-1.parquet")
    (error,) = run("flows.yaml").errors
    assert error.startswith("flows.yaml:9: day=2026-01-02/part-1.parquet: column 'bytes': expected")


def test_training_days_before_a_column_appeared_are_named_with_what_to_do(spec: Spec) -> None:
    write_day("2026-11-19", pa.table(ROW, schema=schema()).drop(["duration"]))
    write_day("2026-11-20", pa.table(ROW, schema=schema()))
    snapshots = [take_snapshot(spec.source(), f"2026-11-{day}") for day in (19, 20)]
    with pytest.raises(Refusal) as refused:
        agree_on_schema(spec, snapshots, training=True)
    first, last = str(refused.value).splitlines()
    assert first.startswith("day=2026-11-19/part-0.parquet: column 'duration': expected double")
    assert last.startswith("choose training.days that have the columns")
    agree_on_schema(spec, snapshots[1:], training=True)


def test_run_refuses_an_unknown_detector(spec: Spec) -> None:
    Path("flows.yaml").write_text(SPEC.replace("autoencoder", "autoencodr"))
    write_day("2026-01-02", pa.table(ROW, schema=schema()))
    (error,) = run("flows.yaml").errors
    assert error.startswith(
        "flows.yaml:13: detector.name: expected one of anomaly_likelihood, autoencoder,"
    )


@pytest.mark.parametrize("name", REAL)
def test_the_specs_of_real_data_fit_them(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"the shared data set {name} is not there")
    monkeypatch.chdir(ROOT)
    report = run(f"specs/{name}.yaml")
    assert report.ok, report.errors


def test_a_day_without_rows_is_not_blamed_for_its_types(spec: Spec) -> None:
    write_day("2026-11-22", pa.table({name: pa.nulls(0) for name in FIELDS}))
    with pytest.raises(Refusal, match=r"expected rows in 2026-11-22 of flows, found none"):
        agree_on_schema(spec, [take_snapshot(spec.source(), "2026-11-22")])
