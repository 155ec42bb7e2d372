"""Shards are written whole and verified when they are read."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.output.shard import Shard, read_shard, shard_key, to_parquet, write_shard
from cluster.lake.storage.store import Store
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import numbered


def test_a_shard_is_read_as_it_was_written(store: Store) -> None:
    table = numbered(1000)
    key = shard_key("2026-11-22", "run-split-1")
    written = write_shard(store, key, table)
    assert written.key == "day=2026-11-22/part-run-split-1.parquet"
    assert (written.rows, written.size) == (1000, store.stat(key).size)
    again = Shard.from_document(json.loads(json.dumps(written.to_document())))
    assert again == written
    assert read_shard(store, again) == table


def test_a_shard_that_changed_since_it_was_written_is_refused(store: Store) -> None:
    written = write_shard(store, "a.parquet", numbered(10))
    write_shard(store, "a.parquet", numbered(10, 1))
    with pytest.raises(Refusal, match=r"a\.parquet has changed since it was written: .* bytes"):
        read_shard(store, written)


def test_a_day_is_percent_encoded_and_cannot_leave_the_table() -> None:
    assert shard_key("a b:c/d", "x") == "day=a%20b%3Ac%2Fd/part-x.parquet"
    for day in ("..", "a/../b", "a\\b", ""):
        with pytest.raises(Refusal, match="is not allowed"):
            shard_key(day, "x")
    with pytest.raises(Refusal, match="is not allowed"):
        shard_key("2026-11-22", "/../../x")


def test_every_page_has_a_checksum(tmp_path: Path) -> None:
    data = bytearray(to_parquet(pa.table({"n": range(10_000)})))
    data[2_000] ^= 1
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(tmp_path / "a.parquet", page_checksum_verification=True)
