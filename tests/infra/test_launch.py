"""The launcher of the CronJobs against an API server with TLS that answers as Kubernetes does."""

import importlib.util
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.infra.rendering import KUBERAY, of_kind

_TOKEN = "a-token-of-the-tests"
_RAYJOBS = "/apis/ray.io/v1/namespaces/anomaray/rayjobs"


class ApiServer(ThreadingHTTPServer):
    """RayJobs of one namespace, behind a certificate of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs: dict[str, Any] = {}
        _write_certificate(folder)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "ca.crt", folder / "key.pem")
        self.socket = tls.wrap_socket(self.socket, server_side=True)


class _Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        found = self.server.jobs.get(self.path.removeprefix(f"{_RAYJOBS}/"))
        self._answer(200 if found else 404, found or {"reason": "NotFound"})

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = job["metadata"]["name"]
        if name in self.server.jobs:
            self._answer(409, {"reason": "AlreadyExists"})
            return
        self.server.jobs[name] = job
        self._answer(201, job)

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        if self.headers["Authorization"] != f"Bearer {_TOKEN}":
            status, document = 401, {"reason": "Unauthorized"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


def _write_certificate(folder: Path) -> None:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an API server of the tests")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    with ApiServer(tmp_path) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def launch(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, in a pod of the namespace."""
    (tmp_path / "token").write_text(_TOKEN + "\n")
    (tmp_path / "namespace").write_text("anomaray")
    path = KUBERAY / "components/cronjob/launch.py"
    found = importlib.util.spec_from_file_location("launch", path)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "GIVEN", tmp_path)
    monkeypatch.setenv("JOB_NAME", "nightly-29395290")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT_HTTPS", str(server.server_address[1]))
    return module


def test_a_run_is_made_of_the_suspended_job_and_is_not_suspended(
    launch: ModuleType, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    pattern = of_kind("gpu", "RayJob")["nightly"]
    server.jobs["nightly"] = {**pattern, "status": {"jobDeploymentStatus": "Suspended"}}
    assert launch.main("nightly") == 0
    made = server.jobs["run-nightly-29395290"]
    assert made["spec"] == {**pattern["spec"], "suspend": False}
    assert made["metadata"]["labels"]["anomaray.io/pattern"] == "nightly"
    assert "status" not in made
    assert capsys.readouterr().out == "rayjob run-nightly-29395290 created\n"


def test_a_pod_that_is_tried_again_makes_no_second_run(
    launch: ModuleType, server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.jobs["nightly"] = of_kind("gpu", "RayJob")["nightly"]
    assert launch.main("nightly") == launch.main("nightly") == 0
    assert server.jobs.keys() == {"nightly", "run-nightly-29395290"}
    assert capsys.readouterr().out.splitlines()[1].endswith("was created before")


def test_a_launcher_is_told_which_job_it_belongs_to() -> None:
    for name in ("nightly", "train"):
        pod = of_kind("cpu", "CronJob")[name]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (given,) = pod["containers"][0]["env"]
        assert given["name"] == "JOB_NAME"
        field = given["valueFrom"]["fieldRef"]["fieldPath"]
        assert field == "metadata.labels['batch.kubernetes.io/job-name']"


def test_a_job_that_is_not_there_is_told_and_fails(
    launch: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main("weekly") == 1
    assert "rayjob weekly: 404" in capsys.readouterr().err


def test_a_token_that_is_refused_is_told_and_not_printed(
    launch: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("another-token")
    assert launch.main("nightly") == 1
    told = capsys.readouterr()
    assert "401" in told.err
    assert "another-token" not in told.err + told.out


def test_a_server_with_another_certificate_gets_no_token(
    launch: ModuleType, server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_certificate(tmp_path)  # the pod now trusts another
    assert launch.main("nightly") == 1
    assert "does not answer" in capsys.readouterr().err
