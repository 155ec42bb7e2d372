"""All uses of Ray's private parts, each with its reason.

`tests/cluster/runtime/test_private_ray.py` fails when Ray's version or one of these parts changes:
read the new Ray's source, mend this file, then raise CHECKED_AGAINST.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray._private.state
import ray._private.worker
from ray._private import ray_constants

CHECKED_AGAINST = "2.60.0"

# Words in the names of Ray's actor classes: the pools of Ray Data, the workers of Ray Train.
POOL_ACTOR = "MapWorker"
TRAINING_WORKER = "RayTrainWorker"

# Set in the processes of a submitted job. Ray has no public way to read what it was submitted with.
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"

# They set their level when they are imported, and report every upload.
UPLOAD_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@contextmanager
def own_machine_only() -> Iterator[None]:
    """A Ray that is started in the block listens on the loopback address alone.

    Its metrics answer without a token. Ray takes that address on macOS and Windows, which have no
    clusters. On Linux it puts the machine's own in its place, also where `ray.init` is given
    `_node_ip_address="127.0.0.1"`.
    """
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def list_actors(kind: str) -> list[str]:
    """Ids of this driver's living actors with this word in the name of their class; 0.5 ms.

    `ray.util.state.list_actors` answers the same through the dashboard, which an embedded Ray does
    not have.
    """
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    table = ray._private.state.actors(job_id=job, actor_state_name="ALIVE")
    return [key for key, actor in table.items() if kind in actor["ActorClassName"]]


def end_actor(actor: str) -> None:
    """End an actor by its id, so that Ray starts it again. `ray.kill` needs a handle, which Ray
    Data keeps. Where the process does not answer, its node kills it after 5 s."""
    worker: Any = ray._private.worker.global_worker.core_worker  # type: ignore[attr-defined]
    worker.kill_actor(ray.ActorID.from_hex(actor), False)


def connect_to_head(address: str) -> None:
    """Ask the head at HOST:PORT for its id, as `ray health-check` does: it takes milliseconds, and
    tells a wrong token (AuthenticationError) from a head that does not answer (RayError)."""
    # Compiled, and so without types.
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    GcsClient(address=address)


def requires_token() -> bool:
    """Whether the Ray of this process asks its callers for a token."""
    from ray._private.authentication import authentication_utils

    return authentication_utils.is_token_auth_enabled()


def lost_worker_errors() -> tuple[type[Exception], ...]:
    """Errors of Ray Train for a worker whose process ended or hangs."""
    from ray.train.v2._internal import exceptions

    return exceptions.WorkerHealthCheckFailedError, exceptions.WorkerHealthCheckTimeoutError


class BoundedRequests:
    """Base of a `JobSubmissionClient` whose requests end in bounded time and follow no redirect;
    Ray's own wait without limit."""

    TIMEOUT_S: tuple[float, float]  # to connect, and between two bytes of an answer

    def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
        options = {"timeout": self.TIMEOUT_S, "allow_redirects": False, **options}
        return super()._do_request(method, endpoint, **options)  # type: ignore[misc]

    @property
    def server_version(self) -> str | None:
        """The version of the cluster's Ray."""
        return self._server_ray_version  # type: ignore[attr-defined, no-any-return]
