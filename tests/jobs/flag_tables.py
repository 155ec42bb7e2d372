"""Tables of flags that tests write."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
from deltalake import write_deltalake

from cluster.lake.output.schemas import flag_schema
from cluster.lake.storage.store import Store
from models.columns import Roles

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
