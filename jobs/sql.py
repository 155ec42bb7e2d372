"""Runs one SQL statement over views of tables in DuckDB, which sees nothing else.

The statement is read as a tree first: it may name the views, its own common table expressions, and
functions of their arguments alone. DuckDB's settings, files, secrets, catalogues and variables are
out of reach. Memory, time and the size of the answer are bounded.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from threading import Timer
from typing import Any

import duckdb
import pyarrow as pa

from models.refusal import Refusal

ReadRows = Callable[[], Iterable[pa.RecordBatch]]

SECONDS = 120.0  # DuckDB groups ten million rows in seconds, and nobody waits longer
_MEMORY = "2GB"
_MOST_CHARACTERS = 64 * 1024
# The answer is turned into text for a terminal or JSON, at about five times its size.
_MOST_ANSWER_BYTES = 256 << 20
_TABLE_FUNCTIONS = {"generate_series", "json_each", "json_tree", "range", "repeat", "unnest"}
# Scalar functions that read or change more than their arguments; `@@name` is a setting.
_STATEFUL = re.compile(
    r"@@|current_(?!date|local|time)|pg_(?!typeof|size_pretty)|has_.*_privilege|sleep"
    r"|(getenv|getvariable|in_search_path|json_execute_serialized_sql|json_serialize_plan"
    r"|session_user|txid_current|user|version|nextval|currval|setval|write_log"
    r"|parse_duckdb_log_message|stats|vector_type)$"
)


class View:
    """Rows as an Arrow stream, read anew for each time that a statement names the view."""

    def __init__(self, schema: pa.Schema, read: ReadRows) -> None:
        self.schema, self.read = schema, read
        self.failed: list[Exception] = []  # errors of the reading, of which DuckDB makes texts

    def __arrow_c_schema__(self) -> Any:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        reader = pa.RecordBatchReader.from_batches(self.schema, self._read())
        return reader.__arrow_c_stream__(requested_schema)

    def _read(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.read()
        except Exception as error:
            self.failed.append(error)
            raise


def run(sql: str, views: Mapping[str, View], seconds: float = SECONDS) -> pa.Table:
    """The answer, with times in UTC.

    Raises `Refusal` for SQL that fails, or is not allowed, and what reading a view raises.
    """
    with duckdb.connect(":memory:") as connection:
        connection.execute("LOAD icu; SET TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET temp_directory = ''")
        for name, view in views.items():
            connection.register(name, view)
        connection.execute("SET enable_external_access = false")
        timer = Timer(seconds, connection.interrupt)
        try:
            _check(sql, connection, views)
            connection.execute("SET lock_configuration = true")
            timer.start()
            return _fetch(connection.sql(sql))
        except duckdb.InterruptException:
            raise Refusal(
                f"SQL: expected an answer within {seconds:g} s, found none; ask for one day with "
                "--day, or for fewer rows"
            ) from None
        except (duckdb.Error, OSError) as error:
            for view in views.values():
                if view.failed:
                    raise view.failed[0] from None
            raise Refusal(f"SQL: {error}\n{_describe(views)}") from error
        finally:
            timer.cancel()


def _fetch(answer: duckdb.DuckDBPyRelation | None) -> pa.Table:
    if answer is None:
        raise Refusal("SQL: expected a statement with a result, such as SELECT")
    reader = answer.to_arrow_reader()
    batches, size = [], 0
    for batch in reader:
        size += batch.nbytes
        if size > _MOST_ANSWER_BYTES:
            raise Refusal(
                f"SQL: expected an answer of at most {_MOST_ANSWER_BYTES:,} bytes, found more; "
                "add a LIMIT, or write the flags as Parquet with --export"
            )
        batches.append(batch)
    return pa.Table.from_batches(batches, reader.schema)


def _describe(views: Mapping[str, View]) -> str:
    return "\n".join(
        f"The view `{name}` has the columns {', '.join(view.schema.names)}"
        for name, view in views.items()
    )


def _check(sql: str, connection: duckdb.DuckDBPyConnection, views: Collection[str]) -> None:
    if len(sql) > _MOST_CHARACTERS:
        raise Refusal(f"SQL: expected at most {_MOST_CHARACTERS:,} characters, found {len(sql):,}")
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise Refusal(f"expected one SQL statement, found {len(statements)}")
    internal = "SELECT view_name FROM duckdb_views() WHERE internal"
    system = {row[0] for row in connection.execute(internal).fetchall()}
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    assert row is not None
    try:
        tree = json.loads(row[0])
    except RecursionError:
        raise Refusal("SQL: it is nested too deeply; write it with fewer brackets") from None
    if tree.get("error"):
        if tree.get("error_type") == "not implemented":
            raise Refusal("SQL: expected a SELECT, found another statement")
        return  # DuckDB says more when it runs
    nodes = list(_walk(tree))
    named = {entry["key"].lower() for node in nodes for entry in _expressions(node)}
    for node in nodes:
        _check_node(node, views, named - system)


def _check_node(node: dict[str, Any], views: Collection[str], named: Collection[str]) -> None:
    kind = node.get("type")
    if kind == "BASE_TABLE":
        parts = [node["catalog_name"], node["schema_name"], node["table_name"]]
        name = ".".join(filter(None, parts))
        if name.lower() not in {*views, *named}:
            there = " or ".join(f"`{view}`" for view in views)
            raise Refusal(f"SQL: expected the view {there}, found the table {name!r}")
    elif kind == "SHOW_REF" and node["show_type"] not in ("DESCRIBE", "SUMMARY"):
        raise Refusal("SQL: SHOW reads DuckDB itself; expected a SELECT from the view `flags`")
    elif kind == "TABLE_FUNCTION":
        name = node["function"]["function_name"].lower()
        if name not in _TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(_TABLE_FUNCTIONS))
            raise Refusal(f"SQL: expected one of the table functions {allowed}, found {name!r}")
    elif "function_name" in node and _STATEFUL.match(node["function_name"].lower()):
        raise Refusal(
            f"SQL: {node['function_name']!r} reads or changes DuckDB itself; expected functions "
            "of their arguments alone"
        )


def _walk(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _expressions(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The common table expressions that a query defines."""
    given = node.get("cte_map")
    found: list[dict[str, Any]] = given["map"] if isinstance(given, dict) else []
    return found
