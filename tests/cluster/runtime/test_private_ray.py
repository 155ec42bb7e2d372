"""The private parts of Ray that we use are as they were when they were read."""

import inspect
import logging

import pytest
import ray
import ray._private.state
import ray.data.context
import ray.train.constants
from ray._private import ray_constants, services
from ray._private.accelerators import accelerator
from ray._private.runtime_env import constants as environment_constants
from ray._raylet import CoreWorker, GcsClient  # type: ignore[attr-defined]
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.job_submission import JobSubmissionClient
from ray.train.v2._internal import constants as train_constants
from ray.train.v2._internal.execution.worker_group.worker import RayTrainWorker
from ray.tune.experimental import output as tune_output

from cluster.runtime import private_ray, session


def test_ray_is_the_version_whose_private_parts_were_read() -> None:
    assert ray.__version__ == private_ray.CHECKED_AGAINST


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (ray._private.state.actors, {"job_id", "actor_state_name"}),
        (CoreWorker.kill_actor, {"actor_id", "no_restart"}),
        (JobSubmissionClient._do_request, {"method", "endpoint", "kwargs"}),
    ],
)
def test_private_functions_take_the_arguments_that_they_are_given(
    function: object, arguments: set[str]
) -> None:
    assert arguments <= inspect.signature(function).parameters.keys()  # type: ignore[arg-type]


def test_private_parts_without_a_signature_are_there() -> None:
    assert isinstance(GcsClient, type)
    assert private_ray.requires_token() in (True, False)
    assert all(issubclass(error, Exception) for error in private_ray.lost_worker_errors())
    assert "self._server_ray_version = " in inspect.getsource(JobSubmissionClient.__mro__[1])
    assert set(private_ray.UPLOAD_LOGGERS) <= logging.root.manager.loggerDict.keys()


def test_ray_asks_one_constant_whether_it_may_listen_beyond_its_machine() -> None:
    asked = inspect.getsource(services.get_node_ip_address)
    assert "if not ray_constants.ENABLE_RAY_CLUSTER:" in asked
    assert "return get_node_ip_address()" in inspect.getsource(services.resolve_ip_for_localhost)


def test_actors_are_named_as_we_look_for_them() -> None:
    assert private_ray.POOL_ACTOR in inspect.getsource(actor_pool_map_operator._MapWorker)
    assert RayTrainWorker.__name__ == private_ray.TRAINING_WORKER


def test_ray_reads_the_variables_that_we_set() -> None:
    assert environment_constants.RAY_JOB_CONFIG_JSON_ENV_VAR == private_ray.JOB_CONFIG
    sources = "".join(
        inspect.getsource(module)
        for module in (
            accelerator,
            ray.data.context,
            ray.train.constants,
            ray._common.usage.usage_constants,
            ray_constants,
            train_constants,
            tune_output,
        )
    )
    ours = {name for name in session.QUIET if name.startswith("RAY_")}
    # Of C++, without a source here; `test_session` sees what it does.
    assert ours - {"RAY_BACKEND_LOG_LEVEL"} == {name for name in ours if f'"{name}"' in sources}
