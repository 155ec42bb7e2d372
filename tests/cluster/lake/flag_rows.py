"""Rows of a small table of flags; imports little, for processes that are started in tests."""

import pyarrow as pa

from cluster.lake.output.shard import Shard, shard_key, write_shard
from cluster.lake.output.table import LakeTable
from cluster.lake.storage.store import Store

SCHEMA = pa.schema(
    [
        pa.field("id", pa.int64()),
        pa.field("ts", pa.timestamp("us", "UTC")),
        pa.field("reasons", pa.list_(pa.struct([pa.field("feature", pa.string())]))),
    ]
)


def flags(store: Store) -> LakeTable:
    return LakeTable(store.child("flags"), SCHEMA, "flags")


def rows(first: int, count: int) -> pa.Table:
    n = range(first, first + count)
    reasons = [[{"feature": f"f{i}"}] for i in n]
    return pa.table([list(n), [0] * count, reasons], schema=SCHEMA)


def shards(table: LakeTable, day: str, run: str, first: int, *counts: int) -> list[Shard]:
    made = []
    for index, count in enumerate(counts):
        key = shard_key(day, f"{run}-{index}-1")
        made.append(write_shard(table.store, key, rows(first, count)))
        first += count
    return made
