"""HTTP client for a remote Ray dashboard.

Each request ends in bounded time and has the token in a header. A dashboard without a token is
refused.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from cluster.runtime.joining import describe_refused_token
from cluster.runtime.private_ray import UPLOAD_LOGGERS, BoundedRequests
from models.refusal import Refusal

# Seconds to connect, and between two bytes of an answer. A head answers in 0.05 s.
_TIMEOUT_S = (5.0, 60.0)

_STATUS = re.compile(r"status code (\d+)")


class DashboardClient(BoundedRequests, JobSubmissionClient):
    """Ray's client with time-outs, for a cluster of this Ray version that asks for a token.

    Raises Refusal for another version, a refused token or none, and ConnectionError if the
    dashboard does not answer.
    """

    TIMEOUT_S = _TIMEOUT_S

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        _require_token(self.address)
        with self.translate_errors(), _hide_ray_addresses():
            super().__init__(self.address)
        if (theirs := self.server_version) != ray.__version__:
            raise Refusal(
                f"expected Ray {ray.__version__} at {self.address}, found {theirs}: use the same "
                "version here and on the cluster"
            )

    @contextmanager
    def translate_errors(self, missing: Exception | None = None) -> Iterator[None]:
        """Raise Refusal or ConnectionError for Ray's errors, and `missing` for an unknown job."""
        try:
            yield
        except AuthenticationError:
            raise Refusal(describe_refused_token(f"the cluster at {self.address}")) from None
        except RuntimeError as error:
            if (found := _STATUS.search(str(error))) is None:
                raise
            status, text = int(found[1]), _last_line(error)
            if status == requests.codes.not_found and missing:
                raise missing from None
            if status == requests.codes.bad_request and "already exists" not in text:
                raise Refusal(f"{self.address} answered: {text}") from None
            # No agent for a job yet, or another submitter has just taken the job's id.
            raise ConnectionError(f"{self.address} answered: {text}") from None
        except (requests.RequestException, ConnectionError, ValueError) as error:
            raise ConnectionError(f"no answer from {self.address}: {_last_line(error)}") from None


def _require_token(address: str) -> None:
    """Raise Refusal if the dashboard answers a request without a token."""
    if not re.match(r"https?://[^/@\s]+$", address):
        raise Refusal(
            f"expected the dashboard of a cluster, http://HOST:8265 without user and password, "
            f"found {address!r}"
        )
    try:
        answer = requests.get(f"{address}/api/version", timeout=_TIMEOUT_S, allow_redirects=False)
    except requests.RequestException as error:
        raise ConnectionError(
            f"no cluster answers at {address} ({type(error).__name__}): check that its head runs, "
            "and that its dashboard listens on more than loopback (--dashboard-host)"
        ) from None
    if answer.status_code == requests.codes.ok:
        raise Refusal(
            f"{address} answers without a token, so anyone who reaches it can run code there: "
            "start its nodes with RAY_AUTH_MODE=token"
        )
    if answer.status_code != requests.codes.unauthorized:
        raise Refusal(
            f"expected a cluster's dashboard at {address}, which answers 401 without a token; "
            f"found {answer.status_code}"
        )


@contextmanager
def _hide_ray_addresses() -> Iterator[None]:
    """Unset two variables that Ray's client prefers to the address that it is given."""
    names = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1].strip() if lines else type(error).__name__


for _noisy in UPLOAD_LOGGERS:
    logging.getLogger(_noisy).setLevel(logging.WARNING)
