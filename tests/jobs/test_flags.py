"""Committed flags come back whole: as a frame, by SQL, on the terminal, as plain Parquet."""

import io
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from rich.console import Console
from typer.testing import CliRunner

from cluster.lake.output.schemas import flag_schema
from cluster.lake.output.table import Commit, LakeTable
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.cli.app import app
from jobs.flags import export, query, read, show, to_json
from jobs.sql import View, run
from models.columns import Roles
from models.refusal import Refusal
from tests.cluster.lake.output.days import TABLES, A, B, Run

ROLES = Roles(id=("uid",), time="ts", entity=("host",), keep=("proto",))
INPUT = pa.schema(
    [
        ("uid", pa.string()),
        ("ts", pa.timestamp("us", "UTC")),
        ("host", pa.string()),
        ("proto", pa.string()),
    ]
)
SCHEMA = flag_schema(INPUT, ROLES).append(pa.field("day", pa.string()))
DAYS = ("2026-11-21", "2026-11-22", "a b/c=%20")


def flags(day: str, count: int, host: str = "10.0.0.1") -> pa.Table:
    """Flags of a day, least severe first."""
    start = datetime(2026, 11, 22, 3, tzinfo=UTC)
    reasons = [
        {"feature": "duration", "contribution": 0.5, "observed": "9 s", "expected": "1 s"},
        {"feature": "bytes", "contribution": 7.5, "observed": "1,200,000", "expected": "3,400"},
    ]
    rows = [
        {
            "uid": f"{day}-{i}",
            "ts": start + timedelta(minutes=i),
            "host": host,
            "proto": "tcp" if i else None,
            "score": 3.5 + i,
            "severity": 70.0 + 10 * i,
            "threshold": 3.0,
            "reasons": reasons,
            "anomaly_id": f"{i:016x}",
            "bundle": "9f2c11d47ab05e36",
            "run_id": "4be1c0a97d2f5e83",
            "day": day,
        }
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def commit(store: Store, *tables: pa.Table) -> None:
    """Append to the table at the store: one version each."""
    for table in tables:
        write_deltalake(
            store.delta_uri,
            table,
            partition_by=["day"],
            mode="append",
            storage_options=store.delta_options,
        )


@pytest.fixture
def table(store: Store) -> Store:
    """Three days of 3, 2 and 1 flags, on a local path and on S3."""
    flagged = store.child("flags")
    commit(flagged, *(flags(day, 3 - i) for i, day in enumerate(DAYS)))
    return flagged


@pytest.fixture
def local(tmp_path: Path) -> Store:
    """The same three days, locally only."""
    store = open_store(str(tmp_path / "flags"))
    commit(store, *(flags(day, 3 - i) for i, day in enumerate(DAYS)))
    return store


def test_one_call_gives_a_frame_most_severe_first(table: Store) -> None:
    frame = read(table.uri)
    assert len(frame) == 6
    assert frame["severity"].is_monotonic_decreasing
    assert frame["severity"].iloc[0] == 90.0
    assert str(frame["ts"].dtype) == "datetime64[us, UTC]"
    assert frame["reasons"].iloc[0][1]["observed"] == "1,200,000"
    for i, day in enumerate(DAYS):
        assert len(read(table.uri, day)) == 3 - i


def test_a_day_without_flags_is_an_empty_frame_with_all_columns(store: Store) -> None:
    flagged = LakeTable(store.child("flags"), flag_schema(INPUT, ROLES), "flags")
    flagged.commit(Commit("2026-11-23", "4be1c0a97d2f5e83", "ab12"), (), None)
    frame = read(flagged.store.uri, "2026-11-23")
    assert len(frame) == 0
    assert set(frame.columns) == set(SCHEMA.names)
    assert len(read(flagged.store.uri, "20261123")) == 0  # the same day
    count = query("SELECT count(*) n FROM flags", flagged.store.uri, "2026-11-23")
    assert count["n"].tolist() == [0]
    with pytest.raises(Refusal, match=r"2026-11-24: .* its only day is 2026-11-23; `score SPEC"):
        read(flagged.store.uri, "2026-11-24")


def test_the_verb_says_that_a_scored_day_has_no_flags(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flagged = LakeTable(open_store(str(out / "flags")), flag_schema(INPUT, ROLES), "flags")
    flagged.commit(Commit("2026-11-23", "4be1c0a97d2f5e83", "ab12"), (), None)
    spec = tmp_path / "flows.yaml"
    spec.write_text(f"""
name: flows
input: {{uri: {tmp_path / "in"}, partition: day}}
columns: {{uid: {{role: id}}, amount: {{role: numeric}}}}
detector: {{name: pca}}
threshold: {{policy: quantile, contamination: 0.01}}
output: {{uri: {out}}}
""")
    no_row = "no row has a score above the threshold"
    asked = {
        ("--day", "2026-11-23"): f"2026-11-23 was scored, and {no_row}\n",
        (): f"of all scored days {no_row}\n",
        ("--day", "2026-11-23", "--json"): "[]\n",
    }
    for options, said in asked.items():
        ended = CliRunner().invoke(app, ["flags", str(spec), *options])
        assert (ended.exit_code, ended.stdout) == (0, said)
    ended = CliRunner().invoke(app, ["flags", str(spec), "--day", "2026-11-24"])
    assert isinstance(ended.exception, Refusal)


def test_a_day_that_was_not_scored_is_refused_with_the_days_that_were(local: Store) -> None:
    expected = (
        r"2026-11-23: expected a day that was scored, but the table lacks it: it has 3 days, the "
        r"nearest are 2026-11-21, 2026-11-22, a b/c=%20; `score SPEC --day 2026-11-23` scores it"
    )
    with pytest.raises(Refusal, match=expected):
        read(local.uri, "2026-11-23")
    with pytest.raises(Refusal, match=expected):
        query("SELECT 1", local.uri, "2026-11-23")
    commit(local, *(flags(f"2026-10-{day:02d}", 1) for day in range(1, 8)))
    with pytest.raises(Refusal, match=r"10 days, the nearest are 2026-10-07, 2026-11-21, .*=%20;"):
        read(local.uri, "2026-11-23")


def test_no_table_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(Refusal, match=r"found none; `score SPEC --day DAY`"):
        read(store.child("nothing").uri)


def test_sql_runs_over_the_view_of_flags(table: Store) -> None:
    counts = query("SELECT day, count(*) n FROM flags GROUP BY day ORDER BY n DESC", table.uri)
    assert counts.to_dict("list") == {"day": list(DAYS), "n": [3, 2, 1]}
    by_reason = (
        "SELECT r.feature, max(r.contribution) m FROM flags, unnest(reasons) u(r) GROUP BY 1"
    )
    found = query(by_reason + " ORDER BY m", table.uri, day="2026-11-22")
    assert found["feature"].tolist() == ["duration", "bytes"]
    assert query("SELECT count(*) n FROM flags", table.uri, day="2026-11-22")["n"][0] == 2


def test_a_time_of_no_calendar_is_text_in_a_frame(local: Store, capsys: Any) -> None:
    far = "SELECT TIMESTAMP '200000-01-01' AS at, 'x' AS at, 1 AS one FROM flags LIMIT 1"
    found = query(far, local.uri)
    assert found.iloc[0].tolist() == ["6249223180800000000 us since 1970", "x", 1]
    assert "200000" not in to_json(found)
    show(found, 5, Console())
    assert "us since 1970" in capsys.readouterr().out


def test_sql_times_are_in_utc_wherever_it_runs(
    local: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    answer = query("SELECT hour(min(ts)) h, min(ts) first FROM flags", local.uri)
    assert answer["h"][0] == 3
    assert str(answer["first"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
        "COPY flags TO '{folder}/out.csv'",
        "ATTACH '{folder}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "SELECT * FROM frame",
        "SELECT current_setting('memory_limit')",
        "SELECT pg_catalog.current_setting('temp_directory')",
        "SELECT @@threads",
        "SELECT getenv('HOME')",
        "SELECT getvariable('x'), severity FROM flags",
        "SELECT severity FROM flags WHERE version() > 'v'",
        "SELECT (SELECT current_schemas(true)) FROM flags",
        "SELECT pg_sleep(1)",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM flags, duckdb_secrets()",
        "SELECT * FROM python_arrow_scan(1, 2, 3)",
        "SELECT * FROM pg_catalog.pg_settings",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM system.information_schema.tables",
        "SELECT * FROM sqlite_master",
        "WITH x AS (WITH sqlite_master AS (SELECT 1) FROM sqlite_master) FROM x, sqlite_master",
        "SELECT * FROM query('SELECT 1')",
        "SHOW threads",
        "SHOW ALL TABLES",
        "PRAGMA version",
        "DESCRIBE duckdb_settings()",
        "SUMMARIZE duckdb_tables",
        "EXPLAIN SELECT 1",
        "SET VARIABLE x = 1",
        "CALL duckdb_settings()",
        "DELETE FROM flags",
        "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
        "SELECT '" + "x" * 70_000 + "'",
    ],
    ids=range(40),
)
def test_sql_reaches_nothing_but_the_view(sql: str, local: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    frame = pd.DataFrame({"a": [1]})  # a Python variable is no table either
    with pytest.raises(Refusal, match="SQL"):
        query(sql.format(secret=secret, folder=tmp_path), local.uri)
    assert len(frame) == 1
    assert not list(tmp_path.glob("out*"))


def test_sql_has_expressions_subqueries_and_functions_of_its_own(local: Store) -> None:
    """What is refused above does not stand in the way of work."""
    for sql in (
        "WITH f AS (FROM flags) SELECT count(*) n, pg_typeof(max(score)) FROM f, range(2) r",
        "SELECT x FROM (SELECT unnest([1, 2]) x) WHERE x IN (SELECT 1 FROM flags)",
        "SELECT version, user_id FROM (SELECT 1 AS version, 2 AS user_id)",
        "DESCRIBE flags",
        "SUMMARIZE flags",
        "SELECT current_date, now(), list_transform([1], lambda y: y + 1)",
    ):
        assert len(query(sql, local.uri))


def test_sql_sees_quarantine_and_scores_of_the_run_that_the_flags_are_of(local: Store) -> None:
    """Also while another run has committed them, and not yet its flags."""
    output = local.child("out")
    uri = output.child("flags").uri
    Run(output, A, day="d1").play()
    Run(output, A, day="d2").play()
    half = Run(output, B, day="d1")
    half.commit(half.write(), TABLES[:2])
    both = "SELECT q.day, q.id, s.id s FROM quarantine q JOIN scores s USING (day, id) ORDER BY 1"
    rows = {"day": ["d1", "d2"], "id": [10, 10], "s": [10, 10]}
    assert query(both, uri).to_dict("list") == rows
    assert query(both, uri, day="d1").to_dict("list") == {"day": ["d1"], "id": [10], "s": [10]}
    half.commit(half.write())
    assert query("SELECT id FROM scores ORDER BY day", uri)["id"].tolist() == [11, 10]
    with pytest.raises(
        Refusal, match=r"(?s)idd.*`flags` has .*\n.*`quarantine` has .*\n.*`scores`"
    ):
        query("SELECT idd FROM scores", uri)
    with pytest.raises(
        Refusal, match=r"the view `flags` or `quarantine` or `scores`, found .*'runs'"
    ):
        query("SELECT * FROM runs", uri)


def test_sql_that_takes_too_long_or_too_much_is_stopped() -> None:
    data = pa.table({"a": [1, 2]})
    views = {"flags": View(data.schema, data.to_batches)}
    started = time.monotonic()
    with pytest.raises(Refusal, match=r"SQL: expected an answer within 0\.2 s, found none"):
        run(
            "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b",
            views,
            0.2,
        )
    assert time.monotonic() - started < 20
    with pytest.raises(Refusal, match=r"SQL: Out of Memory"):
        run("SELECT list(range) FROM range(1000000000)", views)
    with pytest.raises(Refusal, match="SQL: expected an answer of at most 268,435,456 bytes"):
        run("SELECT * FROM range(100000000)", views)


def test_a_statement_may_name_the_view_twice_and_leave_most_of_it_unread() -> None:
    batch = pa.record_batch({"a": pa.array(range(1000))})
    opened: list[int] = []

    def read() -> Iterator[pa.RecordBatch]:
        opened.append(len(opened))
        for _ in range(200):
            yield batch

    both = "SELECT count(*) AS n FROM flags x JOIN flags y ON x.a = y.a AND x.a = 7"
    assert run(both, {"flags": View(batch.schema, read)})["n"].to_pylist() == [200 * 200]
    assert len(opened) == 2
    for _ in range(20):
        assert run("SELECT a FROM flags LIMIT 1", {"flags": View(batch.schema, read)}).num_rows == 1


def test_what_the_reading_raises_is_raised_as_it_is() -> None:
    batch = pa.record_batch({"a": pa.array([1])})

    def read() -> Iterator[pa.RecordBatch]:
        yield batch
        raise Refusal("a file behind a link")

    for _ in range(20):
        with pytest.raises(Refusal, match=r"^a file behind a link$"):
            run("SELECT sum(a) FROM flags", {"flags": View(batch.schema, read)})


def test_wrong_sql_is_refused_with_the_columns(local: Store) -> None:
    with pytest.raises(Refusal, match=r"(?s)severty.*The view `flags` has the columns uid, ts"):
        query("SELECT severty FROM flags", local.uri)
    with pytest.raises(Refusal, match="expected one SQL statement, found 2"):
        query("DROP VIEW flags; SELECT 1", local.uri)
    with pytest.raises(Refusal, match="expected one SQL statement, found 0"):
        query("", local.uri)


def exported(store: Store) -> dict[str, int]:
    """Rows by key of the Parquet files at a store."""
    return {
        found.key: pq.ParquetFile(io.BytesIO(store.read(found.key))).metadata.num_rows
        for found in store.list()
        if found.key.endswith(".parquet")
    }


def test_an_export_is_plain_hive_partitioned_parquet(table: Store, store: Store) -> None:
    target = store.child("plain")
    done = export(table.uri, target.uri)
    assert done.rows == 6
    assert exported(target) == {
        "day=2026-11-21/part-0000000002.parquet": 3,
        "day=2026-11-22/part-0000000002.parquet": 2,
        "day=a%20b%2Fc%3D%2520/part-0000000002.parquet": 1,
    }
    assert json.loads(target.read("_anomaray_export.json"))["complete"] is True


def test_a_reader_without_delta_finds_the_same_rows(local: Store, tmp_path: Path) -> None:
    export(local.uri, str(tmp_path / "plain"))
    files = f"{tmp_path}/plain/*/*.parquet"
    scan = f"FROM read_parquet('{files}', hive_partitioning = true, hive_types_autocast = false)"
    with duckdb.connect() as plain:
        rows = plain.execute(f"SELECT uid, day, severity {scan} ORDER BY uid").fetchall()
    ours = read(local.uri).sort_values("uid")
    assert rows == list(ours[["uid", "day", "severity"]].itertuples(index=False, name=None))


def test_a_second_export_replaces_the_first(table: Store, store: Store) -> None:
    target = store.child("plain")
    export(table.uri, target.uri)
    commit(table, flags("2026-11-23", 4))
    export(table.uri, target.uri)
    assert len(exported(target)) == 4
    assert all(key.endswith("part-0000000003.parquet") for key in exported(target))
    assert sum(exported(target).values()) == 10


def test_an_export_that_died_half_way_is_made_whole_by_the_next(
    local: Store, tmp_path: Path
) -> None:
    target = open_store(str(tmp_path / "plain"))
    target.put("day=2026-11-22", b"a file where a folder must be")
    target.create("_anomaray_export.json", b'{"format": 1, "files": []}')
    with pytest.raises((OSError, Refusal)):
        export(local.uri, target.uri)
    assert json.loads(target.read("_anomaray_export.json"))["complete"] is False
    target.delete("day=2026-11-22")
    commit(local, flags("2026-11-23", 1))
    export(local.uri, target.uri)
    assert sum(exported(target).values()) == 7
    assert all(key.endswith("part-0000000003.parquet") for key in exported(target))


def test_an_export_leaves_the_files_of_others_alone(local: Store, tmp_path: Path) -> None:
    target = open_store(str(tmp_path / "theirs"))
    target.put("day=2026-11-21/part-0.parquet", b"theirs")
    with pytest.raises(Refusal, match=r"1 other objects \(day=2026-11-21/part-0\.parquet"):
        export(local.uri, target.uri)
    with pytest.raises(Refusal, match="expected an empty target"):
        export(local.uri, local.uri)
    assert [found.key for found in target.list()] == ["day=2026-11-21/part-0.parquet"]


@pytest.mark.parametrize(
    "marker",
    [
        b"",
        b"[]",
        b'{"format": 2, "files": []}',
        b'{"format": 1, "files": [{"key": "theirs.parquet"}]}',
        b'{"format": 1, "files": [{"key": "day=x/../../part-0000000001.parquet"}]}',
    ],
)
def test_a_marker_that_is_not_ours_deletes_nothing(
    marker: bytes, local: Store, tmp_path: Path
) -> None:
    target = open_store(str(tmp_path / "plain"))
    target.put("_anomaray_export.json", marker)
    target.put("theirs.parquet", b"theirs")
    with pytest.raises(Refusal, match=r"_anomaray_export\.json"):
        export(local.uri, target.uri)
    assert target.read("theirs.parquet") == b"theirs"
    assert target.read("_anomaray_export.json") == marker


def test_of_two_first_exports_at_once_one_is_refused_or_both_agree(
    table: Store, store: Store
) -> None:
    target = store.child("plain")
    refusals: list[str] = []

    def run() -> None:
        try:
            export(table.uri, target.uri)
        except Refusal as refusal:
            refusals.append(str(refusal))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refusals) <= 1
    assert sum(exported(target).values()) == 6


def printed(frame: pd.DataFrame, limit: int = 10, width: int = 120, **more: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    show(frame, limit, console, **more)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_the_terminal_shows_severity_who_when_and_why(local: Store) -> None:
    text = printed(read(local.uri, "2026-11-21"), limit=2, roles=ROLES)
    assert "90.0" in text
    assert "2026-11-22 03:02:00" in text
    assert "host 10.0.0.1" in text
    assert "bytes 1,200,000 where 3,400 was expected" in text
    assert "2 of 3 rows" in text


def test_rows_without_an_entity_are_told_by_their_id(local: Store) -> None:
    roles = Roles(id=("uid",), time="ts")
    frame = read(local.uri, "2026-11-21")
    assert f"uid {frame['uid'][0]}" in printed(frame, roles=roles)


def test_the_terminal_shows_any_answer_of_sql(local: Store) -> None:
    text = printed(
        query("SELECT proto, count(*) AS n FROM flags GROUP BY 1 ORDER BY 1 NULLS FIRST", local.uri)
    )
    assert text.split() == ["proto", "n", "–", "3", "tcp", "3"]
    nothing = query("SELECT NULL::DOUBLE a, NULL::TIMESTAMP b, NULL c, [1] d FROM flags", local.uri)
    assert printed(nothing, limit=1).split()[4:8] == ["–", "–", "–", "[1]"]


@pytest.mark.parametrize("length", [18, 36, 64])
def test_ids_stand_in_one_piece_on_80_columns_beside_what_is_usual(
    local: Store, length: int
) -> None:
    frame = read(local.uri, "2026-11-21")
    frame["uid"] = [f"{i:0{length}x}" for i in range(len(frame))]
    usual = {"usual": "median 60, 1 to 7,000"}
    frame["reasons"] = [[reason | usual for reason in reasons] for reasons in frame["reasons"]]
    lines = [line.rstrip() for line in printed(frame, width=80, roles=ROLES).splitlines()]
    assert all(len(line) <= 80 for line in lines)
    for uid in frame["uid"]:
        assert f"          uid {uid}" in lines
    text = " ".join(" ".join(lines).split())
    assert "bytes 1,200,000 where 3,400 was expected; usual: median 60, 1 to 7,000" in text


@pytest.mark.parametrize("roles", [ROLES, None])
def test_a_hostile_log_field_cannot_reach_the_terminal(roles: Roles | None, tmp_path: Path) -> None:
    host = "[bold red]x[/] \x1b]0;owned\x07\x1b[2J\u202egnp\r" + "A" * 10_000
    store = open_store(str(tmp_path / "flags"))
    commit(store, flags("2026-11-22", 1, host))
    for frame in (read(store.uri), query('SELECT host AS "[u]h\x1b" FROM flags', store.uri)):
        text = printed(frame, roles=roles, width=200)
        assert "[bold red]x[/]" in text
        assert "\\x1b]0;owned\\x07" in text
        assert not any(c in text for c in "\x1b\x07\r\u202e")
        assert len(text) < 3_000
