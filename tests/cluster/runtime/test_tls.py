"""Calls between nodes encrypted, with certificates made here: `RAY_USE_TLS=1`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.cluster.runtime.ray_head import ROOT, ray_head, ray_node

pytestmark = pytest.mark.slow

_ASK = """
import sys
from cluster.runtime.session import session
with session(sys.argv[1]) as line:
    print(line)
"""


def _certificates(folder: Path) -> dict[str, str]:
    """An authority of our own, and one certificate of it for all nodes of this machine."""
    folder.mkdir(mode=0o700)
    names = f"DNS:localhost,IP:127.0.0.1,IP:{get_node_ip_address()}"
    (folder / "names").write_text(f"subjectAltName={names}\n")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt",
        "req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr",
        "x509 -req -in node.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out node.crt "
        "-extfile names",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


def test_a_cluster_with_tls_lets_in_who_has_a_certificate_of_its_authority_and_no_one_else() -> (
    None
):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: it makes the certificates")
    folder = Path(f"/tmp/anomaray-tls-{os.getpid()}")  # short, for the sockets in it
    folder.mkdir(mode=0o700)
    try:
        own = _certificates(folder / "own")
        others = _certificates(folder / "others")
        with ray_head(folder, **own) as head, ray_node(head, **own):
            joined = _join(head.gcs, head.environment | own)
            assert joined.returncode == 0, joined.stderr
            assert joined.stdout.startswith("joined Ray at ")
            for stranger in (others, {}):
                refused = _join(head.gcs, head.environment | stranger)
                assert refused.returncode != 0
                assert "joined" not in refused.stdout
    finally:
        shutil.rmtree(folder)


def _join(address: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _ASK, address],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
