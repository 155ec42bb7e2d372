"""A table's log is read through a store that breaks answers off."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cluster.lake.storage.delta import OpenedTable, open_table
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.conftest import S3Server
from tests.faults.proxy import FaultProxy, Rule, truncated


def test_a_log_is_read_though_one_body_in_five_breaks_off(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_uri)
    for number in range(4):
        table = pa.table({"n": [number]})
        write_deltalake(store.delta_uri, table, mode="append", storage_options=store.delta_options)
    with FaultProxy(s3_server.endpoint, 5) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        rule = Rule("truncated", truncated, 0.2, lambda request: request.method == "GET")
        proxy.rules.append(rule)
        for _ in range(4):
            opened = open_table(store)
            assert opened is not None
            assert opened.version() == 3
        assert rule.struck


def append(store: Store, number: int) -> None:
    rows = pa.table({"n": [number]})
    options = store.delta_options
    write_deltalake(store.delta_uri, rows, mode="append", storage_options=options)


def test_an_opened_table_is_what_opening_it_anew_would_be(store: Store) -> None:
    opened = OpenedTable(store)
    assert opened.refresh() is None
    for version in range(3):  # others write
        append(store, version)
        table, anew = opened.refresh(), open_table(store)
        assert table is not None
        assert anew is not None
        assert (table.version(), table.file_uris()) == (version, anew.file_uris())


def test_an_opened_table_is_seen_to_be_another_one(store: Store) -> None:
    opened = OpenedTable(store)
    for number in range(3):
        append(store, number)
    assert opened.refresh() is not None
    for one in store.list():
        store.delete(one.key)
    append(store, 7)
    table = opened.refresh()
    assert table is not None
    assert (table.version(), len(table.file_uris())) == (0, 1)
