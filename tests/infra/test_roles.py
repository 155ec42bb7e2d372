"""What the verbs ask of S3, written down by the server, against what their roles may do."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from cluster.lake.storage.opening import open_store
from jobs.demo import data
from tests.conftest import free_port
from tests.infra.iam import Request, allows
from tests.infra.rendering import ROOT
from tests.infra.test_terraform import policies, terraform  # noqa: F401 - fixtures
from tests.night.conftest import write_spec

_BUCKET = "lake"
_LINE = re.compile(r'"(?:\x1b\[[\d;]*m)*(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP')
_TLS = {"aws:SecureTransport": "true"}


def requests(log: str) -> Iterator[Request]:
    """The requests to the bucket as IAM sees them, from the lines of moto's server.

    Deletes of many objects in one POST name them in their body, which is not in the log: they are
    taken for a delete of the whole bucket, which no role may do.
    """
    for method, target in _LINE.findall(log):
        url = urlsplit(target)
        if url.path.split("/")[1] != _BUCKET:
            continue  # Arrow asks after a bucket that nobody has, to tell S3 from other stores
        query = parse_qs(url.query, keep_blank_values=True)
        key = unquote(url.path).removeprefix(f"/{_BUCKET}").lstrip("/")
        resource = f"arn:aws:s3:::{_BUCKET}" + (f"/{key}" if key else "")
        if not key and method in ("GET", "HEAD"):
            prefix = {"s3:prefix": query["prefix"][0]} if "prefix" in query else {}
            yield Request("s3:ListBucket", resource, _TLS | prefix)
        elif method == "DELETE" and "uploadId" in query:
            yield Request("s3:AbortMultipartUpload", resource, _TLS)
        else:
            action = {"GET": "Get", "HEAD": "Get", "DELETE": "Delete"}.get(method, "Put")
            action = "Delete" if "delete" in query else action
            yield Request(f"s3:{action}Object", resource, _TLS)


Asked = tuple[str, str, str | None]  # action, resource, prefix of a list


class Recorder:
    """moto's server with its log, and verbs run against it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "moto.log"
        port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if name[:4] != "AWS_"},
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "an-access-key",
            "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        command = [sys.executable, str(ROOT / "tests/moto_server.py"), "127.0.0.1", str(port)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._make_bucket(f"http://127.0.0.1:{port}/{_BUCKET}")

    def _make_bucket(self, url: str) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
            except urllib.error.URLError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)  # between two looks at the condition
            else:
                return

    def run(self, *words: str) -> set[Asked]:
        """Action, resource and prefix of what a verb asked for."""
        before = len(self.log.read_text())
        command = [sys.executable, "-m", "jobs", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        asked = requests(self.log.read_text()[before:])
        return {(one.action, one.resource, one.context.get("s3:prefix")) for one in asked}


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path)
    yield made
    made.process.terminate()
    made.process.wait(timeout=20)


def _beyond(statements: list[dict[str, Any]], asked: set[Asked]) -> list[str]:
    return sorted(
        f"{action} {resource} {prefix}"
        for action, resource, prefix in asked
        if not allows(statements, Request(action, resource, _context(prefix)))
    )


def _context(prefix: str | None) -> dict[str, str]:
    return _TLS if prefix is None else {**_TLS, "s3:prefix": prefix}


@pytest.mark.slow
def test_each_verb_asks_s3_only_for_what_its_role_may_do(
    recorder: Recorder,
    policies: dict[str, Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in recorder.environment.items():
        monkeypatch.setenv(name, value)
    data.write(tmp_path / "data", days=6, first_day=date(2026, 1, 1), scale=0.08)
    logs = open_store(f"s3://{_BUCKET}/input/flows")
    for path in sorted((tmp_path / "data/flows").rglob("*.parquet")):
        logs.put(path.relative_to(tmp_path / "data/flows").as_posix(), path.read_bytes())
    output = f"s3://{_BUCKET}/anomaray/flows"
    spec = str(write_spec(tmp_path, f"s3://{_BUCKET}/input/flows", output))
    asked = {
        "trainer": recorder.run("train", spec, "--workers", "1"),
        "scorer": recorder.run("nightly", spec),
        "reporter": recorder.run("flags", spec, "--export", f"s3://{_BUCKET}/published/flows"),
    }
    beyond = {role: _beyond(policies[role], what) for role, what in asked.items()}
    assert not any(beyond.values()), beyond
    assert any(action == "s3:PutObject" for action, _, _ in asked["reporter"])
