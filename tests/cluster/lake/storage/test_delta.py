"""A table's log is read through a store that breaks answers off."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from cluster.lake.storage.delta import open_table
from cluster.lake.storage.opening import open_store
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
