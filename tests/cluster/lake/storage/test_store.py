"""A local folder and S3 behave the same, but for a few differences."""

import errno
import http.client
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.lake.output.table import Commit
from cluster.lake.storage import ranged_file
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.retries import thread_retries
from cluster.lake.storage.store import ChangedSinceSnapshot, Missing, Store, check_key
from models.refusal import Refusal
from tests.cluster.lake.flag_rows import flags
from tests.conftest import S3Server


def read_version(store: Store, key: str, version: str) -> bytes:
    with store.open_parquet(key, version) as file:
        return file.read()


def test_a_put_object_is_read_and_listed(store: Store) -> None:
    store.put("a/b/c.txt", b"one")
    store.put("a/d e%20=ü.txt", b"two two")
    store.put("z", b"")
    found = store.list()
    assert [(o.key, o.size) for o in found] == [
        ("a/b/c.txt", 3),
        ("a/d e%20=ü.txt", 7),
        ("z", 0),
    ]
    assert [store.read(o.key) for o in found] == [b"one", b"two two", b""]
    assert [store.stat(o.key).version for o in found] == [o.version for o in found]
    assert store.folders() == ("a",)
    assert store.folders("a") == ("b",)


def test_a_prefix_is_a_folder_or_a_file_and_not_the_start_of_a_name(store: Store) -> None:
    for key in ("day=1/x", "day=10/x", "day=1x"):
        store.put(key, b"data")
    assert [o.key for o in store.list("day=1")] == ["day=1/x"]
    assert [o.key for o in store.list("day=1x")] == ["day=1x"]
    assert store.list("nothing") == ()
    assert store.folders("nothing") == ()


def test_more_objects_than_a_page_of_a_listing_are_all_listed(store: Store) -> None:
    if store.uri.startswith("s3://"):
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda i: store.put(f"many/{i:04}", b""), range(1001)))
        assert len(store.list("many")) == 1001


def test_a_child_sees_the_keys_below_it(store: Store) -> None:
    store.child("a/b").put("c", b"one")
    assert store.read("a/b/c") == b"one"
    assert store.child("a/b").uri == f"{store.uri}/a/b"
    assert [o.key for o in store.child("a").list()] == ["b/c"]


def test_a_store_survives_pickling(store: Store) -> None:
    store.put("a", b"one")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("a") == b"one"


def test_create_writes_once(store: Store) -> None:
    assert store.create("a/one", b"first")
    assert not store.create("a/one", b"second")
    assert store.read("a/one") == b"first"
    store.delete("a/one")
    store.delete("a/one")
    assert store.create("a/one", b"third")


def test_of_twelve_racing_creators_one_wins(store: Store) -> None:
    together = threading.Barrier(12)

    def race(number: int) -> bool:
        together.wait()
        return store._create("prize", b"%d" % number)

    with ThreadPoolExecutor(12) as threads:
        won = list(threads.map(race, range(12)))
    assert won.count(True) == 1
    assert store.read("prize") == b"%d" % won.index(True)


def test_the_probe_finds_conditional_writes_and_leaves_nothing(store: Store) -> None:
    assert store.creates_once()
    assert store.list() == ()


def test_the_probe_finds_a_store_without_conditional_writes(s3_without_conditions: Store) -> None:
    store = s3_without_conditions
    assert not store.creates_once()
    assert store.create("a", b"first")
    assert not store.create("a", b"second"), "a single writer is still safe"
    assert store.read("a") == b"first"
    version = store.stat("a").version
    store.put("a", b"second")
    with pytest.raises(ChangedSinceSnapshot):  # rclone ignores If-Match: the answer is checked
        read_version(store, "a", version)


def test_an_object_larger_than_its_reader_allows_is_not_read(store: Store) -> None:
    store.put("a", b"12345")
    assert store.read("a", 5) == b"12345"
    with pytest.raises(Refusal, match="a: expected at most 4 bytes, found 5"):
        store.read("a", 4)


def test_a_missing_object_is_named(store: Store) -> None:
    store.put("folder/x", b"")
    for key in ("gone", "folder", "folder/x/y"):
        for act in (store.read, store.stat, store.open_parquet):
            with pytest.raises(Missing, match=f"{key}: expected an object, found none"):
                act(key)
        assert not store.exists(key)


def test_an_object_that_changed_is_refused(store: Store) -> None:
    store.put("a", b"first")
    version = store.stat("a").version
    assert read_version(store, "a", version) == b"first"
    store.put("a", b"other")
    with pytest.raises(ChangedSinceSnapshot, match="changed since the snapshot"):
        read_version(store, "a", version)
    store.delete("a")
    with pytest.raises(Missing):
        read_version(store, "a", version)


def test_a_change_between_two_reads_of_an_open_file_is_noticed(store: Store) -> None:
    store.put("a", bytes(200_000))
    with store.open_parquet("a", store.stat("a").version) as file:
        file.read(8)
        if store.uri.startswith("s3://"):
            store.put("a", bytes([1]) * 200_000)
        else:
            (Path(store.uri) / "a").write_bytes(bytes([1]) * 200_000)  # in place: the same inode
        file.seek(0)
        with pytest.raises(ChangedSinceSnapshot):
            file.read(100)


@settings(deadline=None, max_examples=40)  # a real server: its times vary
@given(
    data=st.binary(min_size=0, max_size=300_000),
    cuts=st.lists(st.integers(0, 300_000), min_size=2, max_size=8),
)
def test_ranges_are_the_bytes_of_the_object(
    s3_server: S3Server, data: bytes, cuts: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        patch.setattr(ranged_file, "_PART", 10_000)
        patch.setattr(ranged_file, "_HOLE", 1_000)
        patch.setattr(ranged_file, "_TAIL", 500)
        store = open_store("s3://ranges/x")
        http_put(f"{s3_server.endpoint}/ranges")
        store.put("data", data)
        edges = sorted(min(c, len(data)) for c in cuts)
        spans = [s for s in pairwise(edges) if s[1] > s[0]]
        with store.open_parquet("data") as file:
            file.prefetch(spans)
            for start, stop in reversed(spans):
                file.seek(start)
                assert file.read(stop - start) == data[start:stop]
            file.seek(0)
            assert file.read() == data


def http_put(url: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("PUT", parts.path)
    connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize(
    "key", ["", "../up", "a/../b", "a//b", "/absolute", "a/", ".", "back\\slash", "a\nb", "a\x00b"]
)
def test_a_key_that_could_leave_the_store_is_refused(store: Store, key: str) -> None:
    for act in (store.read, store.stat, store.delete, store.child, store.open_parquet):
        with pytest.raises(Refusal, match="is not allowed"):
            act(key)
    for write in (store.put, store.create):
        with pytest.raises(Refusal, match="is not allowed"):
            write(key, b"")


@given(st.text(max_size=20))
def test_a_key_that_is_allowed_stays_inside(key: str) -> None:
    try:
        check_key(key)
    except Refusal:
        return
    assert os.path.normpath(f"top/{key}").startswith("top/")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "expected a path, file:// or s3://, found gs://"),
        ("s3a://bucket/x", "write s3://"),
        ("s3:///x", "names no bucket"),
        ("s3://bucket/a/../b", "is not allowed"),
        ("file://host/x", "names the host 'host'"),
        ("a\nb", "control character"),
    ],
)
def test_a_uri_of_another_kind_is_refused(uri: str, message: str) -> None:
    with pytest.raises(Refusal, match=message):
        open_store(uri)


def test_the_uri_of_a_parquet_file_opens_the_folder_around_it(tmp_path: Path) -> None:
    assert open_store(f"{tmp_path}/a.parquet").uri == str(tmp_path)
    assert open_store("s3://bucket/x/a.parquet").uri == "s3://bucket/x"
    assert open_store(f"file://{tmp_path}/a%20b").uri == f"{tmp_path}/a b"


def test_pyarrow_sees_the_same_folder(store: Store) -> None:
    store.put("a/b", b"data")
    files, path = store.arrow_filesystem()
    with files.open_input_file(f"{path}/a/b") as file:
        assert file.read() == b"data"


def test_endpoint_and_credentials_may_come_from_a_profile(
    s3_server: S3Server, s3_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    store = open_store(s3_uri)
    config = tmp_path / "config"
    config.write_text(
        f"[profile lake]\nendpoint_url = {s3_server.endpoint}\nregion = eu-west-1\n"
        "aws_access_key_id = a-key\naws_secret_access_key = a-secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(
        Refusal, match=r"access denied .* credentials come from the AWS environment"
    ):
        store.list()
    monkeypatch.setenv("AWS_PROFILE", "lake")
    store.put("a", b"data")
    assert store.read("a") == b"data"
    assert store.delta_options["AWS_ENDPOINT_URL"] == s3_server.endpoint
    assert store.delta_options["AWS_REGION"] == "eu-west-1"
    files, path = store.arrow_filesystem()
    assert files.open_input_file(f"{path}/a").read() == b"data"
    assert flags(store).commit(Commit("d1", "r1", "s1"), [], 0) == 1
    assert flags(store).version() == 1


def test_a_missing_bucket_is_named(s3_uri: str) -> None:
    with pytest.raises(Refusal, match="there is no bucket 'no-such-bucket'"):
        open_store("s3://no-such-bucket/x").list()


def test_an_unfinished_local_file_is_never_listed(tmp_path: Path) -> None:
    (tmp_path / ".deadbeef.anomaray-unfinished").write_bytes(b"half")
    assert open_store(str(tmp_path)).list() == ()


def test_links_in_a_circle_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    keys = [o.key for o in open_store(str(tmp_path)).list()]
    assert keys == ["a/x"]


_FILL = """
import resource, sys
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from models.refusal import Refusal
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = open_store(sys.argv[1])
for write in (store.put, store.create):
    try:
        write("kept", b"n" * 2_000_000)
        write("new", b"n" * 2_000_000)
    except Refusal as refusal:
        print(refusal)
"""


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_a_full_disk_is_refused_and_leaves_nothing_half_written(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if how == "disk":
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk can be mounted by root only")
    try:
        open_store(str(folder)).put("kept", b"before")
        command = [sys.executable, "-c", _FILL, str(folder), how]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        first, second = done.stdout.splitlines()
        assert f"{folder}/kept: the disk is full" in first
        assert "expected room for 2,000,000 bytes" in first
        assert f"{folder}/new: the disk is full" in second
        assert [p.name for p in folder.iterdir()] == ["kept"]
        assert (folder / "kept").read_bytes() == b"before"
    finally:
        if how == "disk":
            subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_hard_links_still_writes_whole_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path))
    assert store.create("a", b"first")
    assert not store.create("a", b"second")
    assert not store.creates_once()


class _Faulty(ThreadingHTTPServer):
    """A proxy before an S3 server that treats the next requests as `faults` says."""

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.behind = urlsplit(behind).netloc
        self.faults: list[str] = []
        self.seen: list[str] = []


class _Forward(BaseHTTPRequestHandler):
    server: _Faulty
    protocol_version = "HTTP/1.1"  # clients wait for "100 Continue", which 1.0 does not know

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.faults.pop(0) if self.server.faults else ""
        self.server.seen.append(f"{self.command} {fault}".strip())
        if fault.isdigit():
            self._answer(int(fault), {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        connection = http.client.HTTPConnection(self.server.behind)
        given = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
        connection.request(self.command, self.path, body, given)
        answer = connection.getresponse()
        data, headers = answer.read(), dict(answer.getheaders())
        connection.close()
        if fault == "lose the reply":
            self.close_connection = True
        elif fault == "cut the body":
            self._answer(answer.status, headers, data[: len(data) // 2])
            self.close_connection = True
        else:
            self._answer(answer.status, headers, data)

    do_GET = do_PUT = do_HEAD = do_DELETE = _any  # noqa: N815 - the names that http.server calls

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def faulty(s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch) -> "_FaultyStore":
    server = _Faulty(s3_server.endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    return _FaultyStore(server, open_store(s3_uri))


class _FaultyStore:
    def __init__(self, server: _Faulty, store: Store) -> None:
        self.server, self.store = server, store

    def then(self, *faults: str) -> Store:
        self.server.faults = list(faults)
        self.server.seen.clear()
        return self.store


def test_a_create_whose_reply_was_lost_is_known_as_ours(faulty: _FaultyStore) -> None:
    store = faulty.then("", "lose the reply")
    assert store.create("a", b"ours")
    assert faulty.server.seen == ["HEAD", "PUT lose the reply", "PUT", "HEAD"]
    assert store.read("a") == b"ours"


def test_a_create_that_another_won_is_not_ours_even_with_equal_bytes(
    faulty: _FaultyStore,
) -> None:
    faulty.then().put("a", b"equal")
    assert not faulty.then("503")._create("a", b"equal")


def test_a_busy_store_is_tried_again(faulty: _FaultyStore) -> None:
    faulty.then("503", "500").put("a", b"data")
    assert faulty.then("503", "lose the reply").read("a") == b"data"
    assert faulty.then("503").list()[0].key == "a"


def test_retries_are_counted_for_the_thread_that_waits(faulty: _FaultyStore) -> None:
    before = thread_retries().value
    faulty.then("503", "500").put("a", b"data")
    with ThreadPoolExecutor(1) as other:
        reading = other.submit(lambda: (faulty.then("503").read("a"), thread_retries().value))
        assert reading.result() == (b"data", 1)
    assert thread_retries().value - before == 2


def test_a_store_that_cannot_be_reached_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in S3Server("http://127.0.0.1:1").environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match="s3://nowhere: Could not connect to the endpoint URL"):
        open_store("s3://nowhere").list()


def test_a_body_that_was_cut_off_is_read_again(faulty: _FaultyStore) -> None:
    data = bytes(range(256)) * 400
    faulty.then().put("a", data)
    assert faulty.then("cut the body").read("a") == data
    assert faulty.server.seen == ["GET cut the body", "GET"]


def test_an_error_that_stays_is_raised_and_not_taken_for_a_bad_file(faulty: _FaultyStore) -> None:
    with pytest.raises(OSError, match=r"503|SlowDown") as caught:
        faulty.then(*["503"] * 20).read("a")
    assert not isinstance(caught.value, Refusal)
    assert len(faulty.server.seen) == 6
