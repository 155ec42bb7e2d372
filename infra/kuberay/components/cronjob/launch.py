"""Make a RayJob from the suspended one of a name: `launch.py nightly`. What the CronJobs run.

It uses the standard library only, and the token, certificate and namespace that every pod of
Kubernetes finds at one place. Exit status 1 says that the API server refused, or did not answer.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

GIVEN = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The CronJob tries again, and gives up after five minutes: one try must leave time for others.
_SECONDS = 30


class Kubernetes:
    """The RayJobs of this pod's namespace."""

    def __init__(self, given: Path, host: str, port: str) -> None:
        namespace = (given / "namespace").read_text().strip()
        self._jobs = f"https://{host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._token = (given / "token").read_text().strip()
        self._tls = ssl.create_default_context(cafile=str(given / "ca.crt"))

    def get(self, name: str) -> dict[str, Any]:
        return self._ask("GET", f"{self._jobs}/{name}", None)

    def create(self, job: dict[str, Any]) -> str:
        """The name that the API server gave it."""
        name: str = self._ask("POST", self._jobs, json.dumps(job).encode())["metadata"]["name"]
        return name

    def _ask(self, method: str, url: str, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(url, body, method=method)  # noqa: S310 - https, above
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(  # noqa: S310
            request, timeout=_SECONDS, context=self._tls
        ) as answer:
            document: dict[str, Any] = json.load(answer)
        return document


def run_of(pattern: dict[str, Any]) -> dict[str, Any]:
    """A RayJob that runs at once, as the suspended `pattern` says."""
    name = pattern["metadata"]["name"]
    labels = pattern["metadata"].get("labels", {})
    return {
        "apiVersion": pattern["apiVersion"],
        "kind": pattern["kind"],
        "metadata": {
            "generateName": f"{name}-",
            "labels": {**labels, "anomaray.io/pattern": name},
        },
        "spec": {**pattern["spec"], "suspend": False},
    }


def main(name: str) -> int:
    kubernetes = Kubernetes(
        GIVEN, os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT_HTTPS"]
    )
    try:
        print(f"rayjob {kubernetes.create(run_of(kubernetes.get(name)))} created")
    except urllib.error.HTTPError as error:
        print(f"rayjob {name}: {error.code} {error.read().decode()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"rayjob {name}: the API server does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
