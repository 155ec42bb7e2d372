"""Files that declare more than they hold are rejected by their footers, in little memory."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.input import limits
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests.cluster.lake.parquet_files import encoded, numbered
from tests.formats.foreign import encrypted
from tests.security import footers

MB = 1024**2
# Memory that reading a bomb may add to the process: the largest footer here has 3 MB.
MEMORY = 200 * MB

# Takes a snapshot within a limit of address space; prints the rejected files and the memory.
_LOOK = """
import json, resource, sys
from cluster.lake.input.partitions import Source
from cluster.lake.input.snapshot import take_snapshot
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
now = int(status["VmSize"].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 1024**3, now + 1024**3))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
taken = take_snapshot(Source(sys.argv[1]), "all")
rejected = {file.key: [file.rule, file.message] for file in taken.rejected}
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
print(json.dumps([rejected, len(taken.files), grown]))
"""


def zeros(groups: int, rows: int, dictionary: bool = False) -> bytes:
    """Row groups of int64 zeros, which zstd compresses to almost nothing."""
    table = pa.table({"n": np.zeros(rows, np.int64)})
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=dictionary
    ) as writer:
        for _ in range(groups):
            writer.write_table(table, row_group_size=rows)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def one_huge_text() -> bytes:
    offsets, zeros = pa.array([0, 300 * MB], pa.int32()).buffers()[1], np.zeros(300 * MB, np.uint8)
    text = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(zeros)])
    options = {"use_dictionary": False, "write_statistics": False, "write_page_checksum": False}
    return encoded(pa.table({"text": text}), compression="zstd", **options)


def with_footer_length(length: int) -> bytes:
    data = encoded(numbered(10))
    return data[:-8] + struct.pack("<I", length) + b"PAR1"


# How to make it, the rule that it breaks, and words of the message.
BOMBS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "gigabytes": (lambda: zeros(300, MB), "oversized", "uncompressed"),
    "one_huge_text": (one_huge_text, "oversized", "a row at most"),
    "wide": (lambda: footers.wide(100_000), "oversized", "10,000 columns"),
    "wider_than_allowed": (lambda: footers.wide(10_001), "oversized", "10,001 columns"),
    "deep": (lambda: footers.deep(1_000), "oversized", "nested deeper"),
    "claims_columns": (lambda: footers.file([], 2**31 - 1), "oversized", "longer list"),
    "claims_groups": (
        lambda: footers.file([footers.group(b"s", 1), footers.leaf(b"x")], None, 2**31 - 1),
        "oversized",
        "longer list",
    ),
    "claims_children": (
        lambda: footers.file([footers.group(b"s", 2**30), footers.leaf(b"x")]),
        "unreadable",
        "damaged footer",
    ),
    # pyarrow ends the process that asks for such a chunk.
    "more_chunks": (lambda: footers.chunks(33_000), "unreadable", "33,000 column chunks"),
    "fewer_chunks": (lambda: footers.chunks(1), "unreadable", "1 column chunks: expected 2"),
    "encrypted_column": (lambda: encrypted(plaintext_footer=True), "unreadable", "encrypted"),
    "encrypted_footer": (lambda: encrypted(plaintext_footer=False), "unreadable", "encrypted"),
    "footer_beyond_the_file": (lambda: with_footer_length(2**31), "unreadable", "damaged footer"),
}


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[str]], int, int]:
    """The snapshot of a day of bombs and one good file, taken by a process with little memory."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _, _) in BOMBS.items():
        (folder / f"{name}.parquet").write_bytes(make())
    (folder / "good.parquet").write_bytes(encoded(numbered(10)))
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rejected, good, grown = json.loads(done.stdout)
    return rejected, good, grown


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_set_aside_by_its_footer(
    name: str, looked: tuple[dict[str, list[str]], int, int]
) -> None:
    _, expected_rule, words = BOMBS[name]
    rule, message = looked[0][f"{name}.parquet"]
    assert rule == expected_rule, message
    assert words in message
    assert message.startswith(f"{name}.parquet ")


def test_a_day_of_bombs_is_read_in_little_memory(
    looked: tuple[dict[str, list[str]], int, int],
) -> None:
    rejected, good, grown = looked
    assert (len(rejected), good) == (len(BOMBS), 1)
    assert grown < MEMORY


def test_a_footer_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with path.open("wb") as file:  # sparse: nothing is written between
        file.write(b"PAR1")
        file.truncate(limits.FOOTER_BYTES + 4096)
        file.seek(0, 2)
        file.write(struct.pack("<I", limits.FOOTER_BYTES + 1) + b"PAR1")
    (rejected,) = take_snapshot(Source(str(tmp_path)), "all").rejected
    assert (rejected.rule, "footer has 67,108,865 bytes" in rejected.message) == ("oversized", True)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_column_of_one_value_is_not_a_bomb(dictionary: bool, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(zeros(4, MB, dictionary))
    assert not take_snapshot(Source(str(tmp_path)), "all").rejected


@pytest.fixture
def large_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """40 rows of 1 MB that do not compress, where a batch may have 4 MB."""
    monkeypatch.setattr(limits, "BATCH_BYTES", 4 * MB)
    texts = [f"{i:06}" * (MB // 6) for i in range(40)]
    table = pa.table({"n": range(40), "text": texts})
    store = open_store(str(tmp_path / "lake"))
    store.put("a.parquet", encoded(table, compression="none", use_dictionary=False))
    return store


def test_rows_of_a_megabyte_come_in_batches_of_few(large_rows: Store) -> None:
    (split,) = cut_splits(take_snapshot(Source(large_rows.uri), "all"), 1000, 10**9)
    found = list(read_rows(large_rows, split, ("n", "text"), 64))
    assert max(rows.batch.num_rows for rows in found) <= 4
    assert [n for rows in found for n in rows.batch.column("n").to_pylist()] == list(range(40))
    small = list(read_rows(large_rows, split, ("n",), 64))
    assert [rows.batch.num_rows for rows in small] == [40]


def test_a_bomb_put_in_place_of_a_file_after_the_snapshot_is_not_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a.parquet", encoded(numbered(10)))
    (split,) = cut_splits(take_snapshot(Source(store.uri), "all"), 1000, 10**9)
    store.put("a.parquet", footers.wide(100_000))
    now = store.stat("a.parquet").version
    with pytest.raises(UnreadableFile, match="longer list") as told:
        list(read_rows(store, replace(split, version=now), ("n",), 64))
    assert told.value.rule == "oversized"
