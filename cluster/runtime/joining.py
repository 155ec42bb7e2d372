"""Joining a running Ray, or saying in bounded time why it cannot be joined.

`ray.init` waits two minutes for a head that is down and gives no reason, so the head is asked first
(docs/decisions/joining-ray.md).
"""

import json
import logging
import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from cluster.runtime import shipping, token, versions
from cluster.runtime.private_ray import JOB_CONFIG, connect_to_head
from models.refusal import Refusal

# Seconds for a head to accept a connection; a head in another region needs 0.3 s.
_CONNECTED_S = 5.0

_SUBMIT = "submit VERB … --address http://HEAD:8265"


def join(address: str, variables: Mapping[str, str]) -> str:
    """Join the Ray at HOST:PORT, or the one of this machine for `auto`; a line that names it.

    Workers get the environment `variables` and the checkout, which is sent unless a submitted job
    has brought it. Raises Refusal for a wrong address, token, machine or version, and
    ConnectionError if the head does not answer.
    """
    if address != "auto":
        _check_head(address)
    job = _read_job()
    with tempfile.TemporaryDirectory() as folder:
        _init(address, _make_environment(job, variables, Path(folder)))
    try:
        nodes = versions.refuse_skew()
    except BaseException:
        ray.shutdown()
        raise
    at = ray.get_runtime_context().gcs_address
    name = job.get("metadata", {}).get("job_submission_id")
    return f"joined Ray at {at}" + (f" as job {name}" if name else "") + f", {_count_nodes(nodes)}"


def _check_head(address: str) -> None:
    """Raise Refusal or ConnectionError unless the head answers and accepts the token."""
    if "://" in address:
        raise Refusal(
            f"expected HOST:PORT of a Ray (its usual port is 6379), found {address}: from outside "
            f"the cluster, submit a job: {_SUBMIT}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Refusal(f"expected HOST:PORT of a Ray, for example head:6379, found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTED_S).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at {address} ({error}): check that it runs"
        ) from None
    try:
        connect_to_head(address)
    except AuthenticationError:
        raise Refusal(describe_refused_token(f"the Ray at {address}")) from None
    except RayError as error:
        raise ConnectionError(f"{address} is not a Ray: {error}") from None


def describe_refused_token(who: str) -> str:
    """The message for a token that the cluster refuses."""
    return (
        f"{who} does not accept the token of {token.describe_source()}: set RAY_AUTH_TOKEN_PATH to "
        "a file with the cluster's own"
    )


def _read_job() -> dict[str, Any]:
    """The configuration of the submitted job that this process belongs to; empty outside a job."""
    config: dict[str, Any] = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return config


def _make_environment(
    job: Mapping[str, Any], variables: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """The workers' environment, without what the job's own has: Ray merges the two, and refuses a
    key that is in both."""
    given = job.get("runtime_env") or {}
    known = given.get("env_vars") or {}
    environment: dict[str, Any] = {
        "env_vars": {name: value for name, value in variables.items() if name not in known}
    }
    if "working_dir" not in given:
        shipping.stage(folder)
        environment["working_dir"] = str(folder)
    return environment


def _init(address: str, environment: dict[str, Any]) -> None:
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=environment,
        )
    except AuthenticationError:
        raise Refusal(describe_refused_token(f"the Ray at {address}")) from None
    except ConnectionError as error:
        if address == "auto":
            raise Refusal(
                f"no Ray runs on this machine: start one, or omit --address ({error})"
            ) from None
        raise Refusal(
            f"the Ray at {address} answers, but has no node on this machine: submit a job to it "
            f"instead: {_SUBMIT}"
        ) from None
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise Refusal(
            f"expected the cluster's Ray and Python here, found others: {error}"
        ) from None


def _count_nodes(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes:,} nodes"
