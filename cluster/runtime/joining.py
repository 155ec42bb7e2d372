"""Join a Ray that runs: refused with a reason where it cannot be, in bounded time.

`ray.init` waits two minutes for a head that is not there, and twenty seconds for one that does not
accept the token, and says the same of both (measured, Ray 2.60). So the head is asked first.
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

# Seconds for a head to take a connection: one in another region needs 0.3, one that is restarted
# comes back with the next run of the scheduler.
_CONNECTED_S = 5.0

_SUBMIT = "python -m jobs submit VERB … --address http://HEAD:8265"


def join(address: str, variables: Mapping[str, str]) -> str:
    """Join the Ray at HOST:PORT (or `auto`, the one of this machine); a line that says so.

    Workers get the `variables`, and the checkout: a submitted job has brought it, otherwise it is
    sent. Raises Refusal for what has to be changed (an address of another kind, the token, this
    machine, versions), ConnectionError for a head that does not answer.
    """
    if address != "auto":
        _answers(address)
    job = _job()
    with tempfile.TemporaryDirectory() as folder:
        _init(address, _environment(job, variables, Path(folder)))
    try:
        nodes = versions.refuse_skew()
    except BaseException:
        ray.shutdown()
        raise
    at = ray.get_runtime_context().gcs_address
    name = job.get("metadata", {}).get("job_submission_id")
    return f"joined Ray at {at}" + (f" as job {name}" if name else "") + f", {_counted(nodes)}"


def _answers(address: str) -> None:
    """Ask the head for its id, which takes a token and milliseconds."""
    if "://" in address:
        raise Refusal(
            f"expected the HOST:PORT of a Ray (6379 is its usual port), found {address}: from "
            f"outside of the cluster, run it there: {_SUBMIT}"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise Refusal(f"expected HOST:PORT of a Ray, such as head:6379, found {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTED_S).close()
    except OSError as error:
        raise ConnectionError(f"no Ray answers at {address} ({error}): is its head up?") from None
    try:
        connect_to_head(address)
    except AuthenticationError:
        raise Refusal(describe_refused_token(f"the Ray at {address}")) from None
    except RayError as error:
        raise ConnectionError(f"what listens at {address} is no Ray: {error}") from None


def describe_refused_token(who: str) -> str:
    """The message for a token that is not the cluster's."""
    return (
        f"{who} does not accept the token of {token.describe_source()}: set RAY_AUTH_TOKEN_PATH to "
        "a file with the cluster's own"
    )


def _job() -> dict[str, Any]:
    """What Ray was told of the submitted job that this process belongs to; empty outside of one."""
    told: dict[str, Any] = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    return told


def _environment(
    job: Mapping[str, Any], variables: Mapping[str, str], folder: Path
) -> dict[str, Any]:
    """The workers' environment: what the job's own does not already say, for Ray merges the two
    and refuses to be told anything twice."""
    given = job.get("runtime_env") or {}
    told = given.get("env_vars") or {}
    environment: dict[str, Any] = {
        "env_vars": {name: value for name, value in variables.items() if name not in told}
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
                f"no Ray runs on this machine: start one, or leave `auto` out ({error})"
            ) from None
        raise Refusal(
            f"the Ray at {address} answers, but has no node on this machine, and a job runs on a "
            f"node of its cluster: {_SUBMIT}"
        ) from None
    except RuntimeError as error:
        if "Version mismatch" not in str(error):
            raise
        raise Refusal(
            f"expected the cluster's Ray and Python here, found others: {error}"
        ) from None


def _counted(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{nodes:,} nodes"
