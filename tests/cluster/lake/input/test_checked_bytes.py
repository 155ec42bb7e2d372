"""A flipped bit on the way never becomes another value where something can tell."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.lake.input.looks import Looks
from cluster.lake.input.partitions import Source
from cluster.lake.input.reading import ReadBytes, open_split
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import Split, cut_splits
from cluster.lake.storage import ranged_file
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.retries import thread_retries
from cluster.lake.storage.s3 import S3Store
from cluster.lake.storage.store import ChangedSinceSnapshot, Store
from tests.faults.proxy import FaultProxy, Forward, Reply, Request, Rule, flipped

KEY = "day=2026-11-20/part.parquet"
ROWS = 60_000
TABLE = pa.table(
    {
        "amount": np.random.default_rng(7).normal(size=ROWS),
        "packets": np.random.default_rng(8).integers(0, 2**40, ROWS),
        "protocol": np.random.default_rng(9).choice(["tcp", "udp"], ROWS),
    }
)


def encode(**options: Any) -> bytes:
    """The table as Parquet: several times as large as what a first request reads of its end."""
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink, **{"compression": "none", **options})
    return bytes(sink.getvalue())


PLAIN = encode()


@pytest.fixture(autouse=True)
def forget_buckets() -> Iterator[None]:
    yield
    ranged_file._other_etags.clear()


def list_splits(uri: str, rows: int = ROWS) -> list[Split]:
    return list(cut_splits(take_snapshot(Source(uri), "all"), rows, 1 << 30))


def read(store: Store, split: Split) -> tuple[pa.Table, ReadBytes]:
    """Two columns of a split, as a worker reads them, and how its bytes were checked."""

    def look() -> tuple[pa.Table, ReadBytes]:
        names = ("amount", "packets")
        with open_split(store, split) as source:
            source.prefetch(names)
            batches = [rows.batch for rows in source.read_rows(names, 10_000)]
            return pa.Table.from_batches(batches), source.read_bytes

    return Looks().read(split.key, look)


def flip(proxy: FaultProxy, **options: Any) -> Rule:
    """Bodies of the file come with a flipped bit."""
    where = lambda request: request.method == "GET" and request.key.endswith(KEY)  # noqa: E731
    proxy.rules.append(Rule("flipped", flipped, where=where, **options))
    return proxy.rules[-1]


@pytest.mark.parametrize("skip", range(3))
def test_a_file_without_page_checksums_is_compared_with_its_etag(
    proxy: FaultProxy, s3_uri: str, skip: int
) -> None:
    store = open_store(s3_uri)
    store.put(KEY, PLAIN)
    (split,) = list_splits(s3_uri)
    rule = flip(proxy, skip=skip, times=2)
    table, checked = read(store, split)
    assert table.equals(TABLE.select(["amount", "packets"]))
    assert (checked.by_pages, checked.by_nothing) == (0, 0)
    assert checked.by_store > 16 * ROWS * 0.9
    assert rule.struck == 2


def test_half_of_all_bodies_may_be_flipped(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put(KEY, PLAIN)
    splits = list_splits(s3_uri, rows=ROWS // 5)
    assert len(splits) == 5
    flip(proxy, share=0.4)
    for split in splits:
        table, checked = read(store, split)
        expected = TABLE.select(["amount", "packets"]).slice(split.first_row, split.rows)
        assert table.equals(expected)
        assert checked.by_nothing == 0


def test_pages_with_checksums_need_no_digest_of_the_store(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put(KEY, encode(write_page_checksum=True))
    (split,) = list_splits(s3_uri)
    before = proxy.requests
    _, checked = read(store, split)
    assert (checked.by_store, checked.by_nothing) == (0, 0)
    assert checked.by_pages > 0
    assert proxy.requests == before + 2  # the end of the file, and its columns


def send(store: Store, method: str, **parameters: Any) -> dict[str, Any]:
    assert isinstance(store, S3Store)
    return store._requests.call(method, KEY, **parameters)


def put_in_parts(store: Store) -> None:
    upload = send(store, "create_multipart_upload")["UploadId"]
    sent = send(store, "upload_part", UploadId=upload, PartNumber=1, Body=PLAIN)
    parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
    send(store, "complete_multipart_upload", UploadId=upload, MultipartUpload=parts)


def test_an_object_in_parts_is_said_to_be_unchecked(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    put_in_parts(store)
    (split,) = list_splits(s3_uri)
    table, checked = read(store, split)
    assert table.equals(TABLE.select(["amount", "packets"]))
    assert (checked.by_pages, checked.by_store) == (0, 0)
    assert checked.by_nothing > 0


@pytest.mark.parametrize("algorithm", ["CRC32", "SHA1", "SHA256"])
def test_an_object_with_a_key_of_its_own_is_compared_with_its_checksum(
    proxy: FaultProxy, s3_uri: str, algorithm: str
) -> None:
    store = open_store(s3_uri)
    secret = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "a-key"}
    send(store, "put_object", Body=PLAIN, ChecksumAlgorithm=algorithm, **secret)
    (split,) = list_splits(s3_uri)
    flip(proxy, skip=1, times=1)
    table, checked = read(store, split)
    assert table.equals(TABLE.select(["amount", "packets"]))
    assert checked.by_store > 0


async def other_etag(request: Request, forward: Forward, chance: random.Random) -> Reply:
    """As a store whose ETags are 32 digits, and no MD5."""
    asked = request.headers.copy()
    asked.popall("If-Match", None)
    reply = await forward(replace(request, headers=asked))
    if "ETag" in reply.headers:
        reply.headers["ETag"] = f'"{"0123456789abcdef" * 2}"'
        for name in [name for name in reply.headers if name.lower().startswith("x-amz-checksum")]:
            del reply.headers[name]
    return reply


def test_an_etag_that_is_no_digest_is_found_out_once(proxy: FaultProxy, s3_uri: str) -> None:
    store = open_store(s3_uri)
    store.put(KEY, PLAIN)
    proxy.rules.append(Rule("other etag", other_etag))
    version = store.stat(KEY).version
    split = replace(list_splits(s3_uri)[0], version=version)
    requests = []
    for _ in range(2):
        before = proxy.requests
        table, checked = read(store, split)
        requests.append(proxy.requests - before)
        assert table.equals(TABLE.select(["amount", "packets"]))
        assert checked.by_store == 0
    assert requests[1] < requests[0]


def test_a_local_file_without_page_checksums_is_said_to_be_unchecked(tmp_path: Any) -> None:
    store = open_store(str(tmp_path))
    store.put(KEY, PLAIN)
    (split,) = list_splits(str(tmp_path))
    _, checked = read(store, split)
    assert (checked.by_pages, checked.by_store) == (0, 0)
    assert checked.by_nothing > 16 * ROWS * 0.9


def test_a_footer_is_the_one_that_the_snapshot_has_read(store: Store) -> None:
    store.put(KEY, encode(write_page_checksum=True))
    (split,) = list_splits(store.uri)
    with (
        pytest.raises(ChangedSinceSnapshot, match="another footer"),
        open_split(store, replace(split, footer="0" * 16)),
    ):
        pass


def test_a_narrow_read_over_tls_does_not_fetch_the_whole_file(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_uri)
    assert isinstance(store, S3Store)
    store.put(KEY, PLAIN)
    for encrypted, whole in ((True, False), (False, True)):
        file = store.open_parquet(KEY)
        monkeypatch.setattr(type(file._s3), "is_encrypted", lambda _, found=encrypted: found)
        resent = thread_retries().value
        assert file.verify(1 << 30) is whole
        assert thread_retries().value == resent
    assert not store.open_parquet(KEY).verify(len(PLAIN) - 1)
