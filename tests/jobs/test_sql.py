"""SQL over committed flags sees its views and nothing else, within bounds."""

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from cluster.lake.storage.store import Store
from jobs.flags import query
from jobs.sql import View, run
from models.refusal import Refusal
from tests.cluster.lake.output.days import TABLES, A, B, Run
from tests.jobs.flag_tables import DAYS


def test_sql_runs_over_the_view_of_flags(flag_table: Store) -> None:
    counts = query("SELECT day, count(*) n FROM flags GROUP BY day ORDER BY n DESC", flag_table.uri)
    assert counts.to_dict("list") == {"day": list(DAYS), "n": [3, 2, 1]}
    by_reason = (
        "SELECT r.feature, max(r.contribution) m FROM flags, unnest(reasons) u(r) GROUP BY 1"
    )
    found = query(by_reason + " ORDER BY m", flag_table.uri, day="2026-11-22")
    assert found["feature"].tolist() == ["duration", "bytes"]
    assert query("SELECT count(*) n FROM flags", flag_table.uri, day="2026-11-22")["n"][0] == 2


def test_sql_times_are_in_utc_wherever_it_runs(
    local_flags: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    answer = query("SELECT hour(min(ts)) h, min(ts) first FROM flags", local_flags.uri)
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
def test_sql_reaches_nothing_but_the_view(sql: str, local_flags: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    frame = pd.DataFrame({"a": [1]})  # a Python variable is no table either
    with pytest.raises(Refusal, match="SQL"):
        query(sql.format(secret=secret, folder=tmp_path), local_flags.uri)
    assert len(frame) == 1
    assert not list(tmp_path.glob("out*"))


def test_sql_has_expressions_subqueries_and_functions_of_its_own(local_flags: Store) -> None:
    """What is refused above does not stand in the way of work."""
    for sql in (
        "WITH f AS (FROM flags) SELECT count(*) n, pg_typeof(max(score)) FROM f, range(2) r",
        "SELECT x FROM (SELECT unnest([1, 2]) x) WHERE x IN (SELECT 1 FROM flags)",
        "SELECT version, user_id FROM (SELECT 1 AS version, 2 AS user_id)",
        "DESCRIBE flags",
        "SUMMARIZE flags",
        "SELECT current_date, now(), list_transform([1], lambda y: y + 1)",
    ):
        assert len(query(sql, local_flags.uri))


def test_sql_sees_quarantine_and_scores_of_the_run_that_the_flags_are_of(
    local_flags: Store,
) -> None:
    """Also while another run has committed them, and not yet its flags."""
    output = local_flags.child("out")
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


def test_wrong_sql_is_refused_with_the_columns(local_flags: Store) -> None:
    with pytest.raises(Refusal, match=r"(?s)severty.*The view `flags` has the columns uid, ts"):
        query("SELECT severty FROM flags", local_flags.uri)
    with pytest.raises(Refusal, match="expected one SQL statement, found 2"):
        query("DROP VIEW flags; SELECT 1", local_flags.uri)
    with pytest.raises(Refusal, match="expected one SQL statement, found 0"):
        query("", local_flags.uri)
