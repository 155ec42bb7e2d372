"""Make a RayJob from the suspended one of a name: `launch.py nightly`. What the CronJobs run.

Its name is that of the Job whose pod this is, so that a pod that is tried again, since it never
heard the answer, makes no second one: two nights at once would score all that they do twice.

It uses the standard library only, and the token, certificate and namespace that every pod of
Kubernetes finds at one place. Exit status 1 says that the API server refused, or did not answer.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from http import HTTPStatus
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

    def create(self, job: dict[str, Any]) -> bool:
        """Whether it was not there before."""
        try:
            self._ask("POST", self._jobs, json.dumps(job).encode())
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise
            return False
        return True

    def _ask(self, method: str, url: str, body: bytes | None) -> dict[str, Any]:
        request = urllib.request.Request(url, body, method=method)  # noqa: S310 - https, above
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(  # noqa: S310
            request, timeout=_SECONDS, context=self._tls
        ) as answer:
            document: dict[str, Any] = json.load(answer)
        return document


def run_of(pattern: dict[str, Any], owner: str) -> dict[str, Any]:
    """The RayJob of the Job `owner`, which runs at once, as the suspended `pattern` says."""
    name = pattern["metadata"]["name"]
    labels = pattern["metadata"].get("labels", {})
    return {
        "apiVersion": pattern["apiVersion"],
        "kind": pattern["kind"],
        "metadata": {
            # Never the pattern's own, whatever a Job that was made by hand is called.
            "name": f"run-{owner}",
            "labels": {**labels, "anomaray.io/pattern": name},
        },
        "spec": {**pattern["spec"], "suspend": False},
    }


def main(name: str) -> int:
    kubernetes = Kubernetes(
        GIVEN, os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT_HTTPS"]
    )
    try:
        run = run_of(kubernetes.get(name), os.environ["JOB_NAME"])
        is_new = kubernetes.create(run)
        print(f"rayjob {run['metadata']['name']} {'created' if is_new else 'was created before'}")
    except urllib.error.HTTPError as error:
        print(f"rayjob {name}: {error.code} {error.read().decode()}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"rayjob {name}: the API server does not answer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
