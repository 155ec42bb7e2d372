"""Rows of a small table of flags; imports little, for processes that are started in tests."""

from urllib.parse import unquote

import pyarrow as pa
import pyarrow.dataset as ds
from deltalake import DeltaTable

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


def dataset_of(table: LakeTable) -> ds.Dataset:
    """The committed rows, as any reader of Delta finds them."""
    return _open(table).to_pyarrow_dataset()


def keys_of(table: LakeTable) -> list[str]:
    """The files that the table consists of now."""
    files = pa.table(_open(table).get_add_actions(flatten=True))
    return sorted(unquote(path) for path in files.column("path").to_pylist())


def _open(table: LakeTable) -> DeltaTable:
    return DeltaTable(table.store.delta_uri, storage_options=table.store.delta_options)


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
