"""What passes while a file is looked at again leaves no trace; what stays is told as it is."""

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.lake.input.looks import VARIABLE, Looks, UnsettledInput
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import read_rows
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.input.unreadable import UnreadableFile
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store, StoreFailed
from models.refusal import Refusal
from tests.cluster.lake.parquet_files import encoded, numbered
from tests.conftest import S3Server
from tests.faults.proxy import FaultProxy, Request, Rule, flipped, truncated

ROWS = 40_000  # more than the tail of a file that is read at once


@pytest.fixture
def proxy(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultProxy]:
    """Between the server and the stores of the test."""
    with FaultProxy(s3_server.endpoint, 1) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def split_of(store: Store) -> Split:
    (split,) = cut_splits(take_snapshot(Source(f"{store.uri}/a.parquet"), "all"), 10**9, 10**12)
    return split


def numbers(store: Store, split: Split) -> list[int]:
    return [n for rows in read_rows(store, split, ["n"], 64) for n in rows.numbers.tolist()]


def look(store: Store, split: Split) -> list[int]:
    return Looks().read(split.key, lambda: numbers(store, split))


def test_a_file_that_comes_back_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "60")
    store, looked = open_store(str(tmp_path / "day")), threading.Event()
    store.put("a.parquet", encoded(numbered(ROWS)))
    split = split_of(store)
    (tmp_path / "day").rename(tmp_path / "away")

    def come_back() -> None:
        assert looked.wait(60)
        (tmp_path / "away").rename(tmp_path / "day")

    friend = threading.Thread(target=come_back)
    friend.start()

    def read() -> list[int]:
        try:
            return numbers(store, split)
        finally:
            looked.set()

    assert Looks().read(split.key, read) == list(range(ROWS))
    friend.join()


def test_a_file_that_stays_away_or_changes_is_unsettled(store: Store) -> None:
    store.put("a.parquet", encoded(numbered(ROWS)))
    split = split_of(store)
    store.put("a.parquet", encoded(numbered(ROWS + 1)))
    with pytest.raises(UnsettledInput, match="changed since the snapshot"):
        look(store, split)
    store.delete("a.parquet")
    with pytest.raises(UnsettledInput, match="it was there when the snapshot was taken"):
        look(store, split)


def test_a_damaged_file_is_read_three_times_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "3600")
    store, readings = open_store(str(tmp_path)), 0
    store.put("a.parquet", encoded(numbered(ROWS)))
    whole = store.read("a.parquet")
    split = split_of(store)
    damaged = bytearray(whole)
    for place in range(100, len(whole) // 2, 100):
        damaged[place] ^= 1
    path = tmp_path / "a.parquet"
    times = path.stat()
    path.write_bytes(damaged)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def read() -> list[int]:
        nonlocal readings
        readings += 1
        return numbers(store, split)

    with pytest.raises(UnreadableFile, match="does not match its checksum"):
        Looks().read(split.key, read)
    assert readings == 3


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_bit_that_flips_on_the_way_is_read_again(
    proxy: FaultProxy, s3_uri: str, times: int
) -> None:
    store = open_store(s3_uri)
    store.put("a.parquet", encoded(numbered(ROWS)))
    split = split_of(store)
    proxy.rules.append(Rule("flipped", flipped, where=_reads, times=times))
    assert look(store, split) == list(range(ROWS))
    assert proxy.struck == {"flipped": times}


def test_a_bit_that_flips_in_a_footer_rejects_no_file(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put("a.parquet", encoded(numbered(ROWS)))
    quiet = take_snapshot(Source(f"{s3_uri}/a.parquet"), "all")
    proxy.rules.append(Rule("cut", truncated, where=_reads, share=0.5))
    proxy.rules.append(Rule("flipped", flipped, where=_reads, times=2))
    assert take_snapshot(Source(f"{s3_uri}/a.parquet"), "all").digest == quiet.digest


def test_other_bytes_each_time_prove_nothing(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put("a.parquet", encoded(numbered(ROWS)))
    split = split_of(store)
    proxy.rules.append(Rule("flipped", flipped, where=_reads))
    with pytest.raises(UnsettledInput, match="had other bytes each time"):
        look(store, split)


def _reads(request: Request) -> bool:
    return request.method == "GET" and request.key.endswith("a.parquet")


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (OSError(errno.EIO, "Input/output error"), "unreadable"),
        (OSError(errno.ESTALE, "Stale file handle"), "unreadable"),
        (StoreFailed("s3://lake: 503 (tried 6 times)"), "failing"),
        (FileNotFoundError("gone"), "vanished"),
    ],
)
def test_an_error_of_a_disk_or_a_store_may_pass(error: OSError, rule: str) -> None:
    looks, errors = Looks(), iter([error, error])

    def read() -> str:
        for one in errors:
            raise one
        return "read"

    assert looks.read("a", read) == "read"

    def fail() -> None:
        raise error

    with pytest.raises(UnsettledInput) as raised:
        looks.read("a", fail)
    assert raised.value.rule == rule


def test_what_may_not_be_read_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3600")

    def fail() -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(PermissionError):
        Looks().read("a", fail)


def test_the_patience_is_a_number_of_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "a while")
    with pytest.raises(Refusal, match="ANOMARAY_LOOK_AGAIN_SECONDS is 'a while'"):
        Looks()
