"""The fault proxy itself: what it is told to do to requests, it does, and nothing else."""

import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request

import pytest

from cluster.lake.storage.opening import open_store
from cluster.lake.storage.s3 import S3Store
from cluster.lake.storage.store import Store
from tests.conftest import S3Server
from tests.faults.proxy import KINDS, FaultProxy, Rule, acting, error, hidden

BODY = b"some bytes of an object " * 100


@pytest.fixture
def lake(proxy: FaultProxy, s3_uri: str) -> Store:
    return open_store(s3_uri)


def url(proxy: FaultProxy, lake: Store, key: str) -> str:
    assert isinstance(lake, S3Store)
    return f"{proxy.endpoint}/{lake.bucket}/{lake.prefix}/{key}"


def rule(proxy: FaultProxy, name: str, **options: int | float) -> Rule:
    kind, where = KINDS[name]
    proxy.rules.append(Rule(name, kind, where=where, **options))  # type: ignore[arg-type]
    return proxy.rules[-1]


def test_without_rules_it_is_not_noticed(proxy: FaultProxy, lake: Store) -> None:
    keys = [f"a folder/{n} ü+=%.txt" for n in range(3)]
    for key in keys:
        lake.put(key, key.encode() * 1000)
    assert [o.key for o in lake.list("a folder")] == keys
    assert [lake.read(key) for key in keys] == [key.encode() * 1000 for key in keys]
    assert lake.stat(keys[0]).size == len(keys[0].encode() * 1000)
    assert lake.creates_once()
    assert lake.open_parquet(keys[0]).read(10) == keys[0].encode()[:10]
    lake.delete(keys[0])
    assert not lake.exists(keys[0])
    lake.put("large", bytes(3 * 2**20))
    assert len(lake.read("large")) == 3 * 2**20
    assert proxy.requests > 10


@pytest.mark.parametrize(("name", "status"), [("500", 500), ("503", 503)])
def test_an_error_is_answered_in_the_servers_place(
    proxy: FaultProxy, lake: Store, name: str, status: int
) -> None:
    lake.put("key", BODY)
    struck = rule(proxy, name, times=1)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url(proxy, lake, "key"))
    assert caught.value.code == status
    assert lake.read("key") == BODY
    assert struck.struck == 1


@pytest.mark.parametrize("name", ["409", "412"])
def test_conditions_are_refused_only_of_conditional_writes(
    proxy: FaultProxy, lake: Store, name: str
) -> None:
    struck = rule(proxy, name, times=1)
    lake.put("key", BODY)
    assert lake.read("key") == BODY
    assert struck.struck == 0
    # A 409 is to be tried again; a 412 says that there is such an object.
    assert lake.create("other", BODY) == (name == "409")
    assert struck.struck == 1


def test_a_reset_reaches_the_client_and_not_the_server(proxy: FaultProxy, lake: Store) -> None:
    rule(proxy, "reset", times=1)
    with pytest.raises(OSError, match=r"reset|closed|aborted"):
        put(url(proxy, lake, "key"))
    assert not lake.exists("key")


def test_a_lost_reply_is_lost_after_the_write_took_place(proxy: FaultProxy, lake: Store) -> None:
    rule(proxy, "lost-reply", times=1)
    with pytest.raises(OSError, match=r"reset|closed|aborted"):
        put(url(proxy, lake, "key"))
    assert lake.read("key") == BODY


def test_a_stall_is_a_wait_of_seconds(proxy: FaultProxy, lake: Store) -> None:
    lake.put("key", BODY)
    rule(proxy, "stall", times=1)
    started = time.monotonic()
    assert lake.read("key") == BODY
    assert time.monotonic() - started >= 2


def test_a_truncated_body_is_shorter_than_announced(proxy: FaultProxy, lake: Store) -> None:
    put(url(proxy, lake, "key"))
    rule(proxy, "truncated", times=1)
    with urllib.request.urlopen(url(proxy, lake, "key")) as answer:
        assert int(answer.headers["Content-Length"]) == len(BODY)
        with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
            answer.read()


def test_a_flipped_body_differs_in_one_bit(proxy: FaultProxy, lake: Store) -> None:
    put(url(proxy, lake, "key"))
    rule(proxy, "flipped", times=1)
    with urllib.request.urlopen(url(proxy, lake, "key")) as answer:
        found = answer.read()
    assert sum((a ^ b).bit_count() for a, b in zip(found, BODY, strict=True)) == 1


def test_a_listing_hides_one_key_that_matches(proxy: FaultProxy, lake: Store) -> None:
    for name in ("a", "b1", "b2"):
        lake.put(f"folder/{name}", BODY)
    proxy.rules.append(Rule("hidden", hidden("folder/b"), where=lambda r: r.is_listing, times=1))
    assert len(lake.list("folder")) == 2
    assert len(lake.list("folder")) == 3


@pytest.mark.parametrize("side", ["before", "after"])
def test_an_action_comes_before_or_after_the_write(
    proxy: FaultProxy, lake: Store, s3_server: S3Server, side: str
) -> None:
    acted = threading.Event()
    kind = acting(side, acted.set)
    proxy.rules.append(Rule("strike", kind, where=lambda r: r.method == "PUT", skip=1, times=1))
    put(url(proxy, lake, "first"))
    assert not acted.is_set()
    with pytest.raises(OSError, match=r"reset|closed|aborted"):
        put(url(proxy, lake, "second"))
    assert acted.is_set()
    assert lake.exists("second") == (side == "after")


def test_which_requests_are_struck_is_the_seeds_choice(
    s3_server: S3Server, lake: Store, proxy: FaultProxy
) -> None:
    def struck(seed: int, names: list[str]) -> set[str]:
        found = set()
        with FaultProxy(s3_server.endpoint, seed) as seeded:
            seeded.rules.append(Rule("500", error(500, "InternalError"), 0.5))
            for name in names:
                try:
                    urllib.request.urlopen(url(seeded, lake, name)).close()
                except urllib.error.HTTPError as answer:
                    if answer.code == 500:
                        found.add(name)
        return found

    names = [hashlib.sha256(bytes([n])).hexdigest() for n in range(40)]
    first = struck(1, names)
    assert 5 < len(first) < 35
    assert struck(1, names[::-1]) == first
    assert struck(2, names) != first


def test_lifted_faults_strike_no_more(proxy: FaultProxy, lake: Store) -> None:
    put(url(proxy, lake, "key"))
    struck = rule(proxy, "500")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url(proxy, lake, "key"))
    proxy.lift()
    urllib.request.urlopen(url(proxy, lake, "key")).close()
    assert struck.struck == 1


def put(address: str) -> None:
    headers = {"Content-Type": "application/octet-stream", "x-amz-acl": "public-read"}
    request = urllib.request.Request(address, BODY, headers, method="PUT")
    urllib.request.urlopen(request).close()
