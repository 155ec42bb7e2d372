"""Train a detector with DDP: Ray Train runs `cluster.training.worker` in each worker, Ray Data
streams the rows to them."""

import logging
import math
import threading
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util import placement_group_table
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.runtime import watchdog
from cluster.runtime.private_ray import TRAINING_WORKER, list_actors, lost_worker_errors
from cluster.runtime.resources import WorkerPlan
from cluster.splits.ray_engine import RayTables
from cluster.training import checkpoint
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData
from cluster.training.rank import WorkerInput
from cluster.training.worker import train_worker
from models.training.options import NonFiniteLoss
from models.training.progress import EpochResult, Progress

# Seconds after which a worker stops waiting for the others. Ray notices a lost node within a
# minute; this is for a node that lives but is cut off from the others, where Ray waits 30 min. It
# has to be longer than one worker waits for its rows from a slow store.
_COLLECTIVE_S = 120.0
COLLECTIVE = "ANOMARAY_COLLECTIVE_SECONDS"
# Seconds after which a new node gets workers. All workers restart then, which takes some 10 s.
_RESIZE_S = 30.0
# Workers start in 10 s if there is room. After this many seconds without one, a warning is logged.
_UNSTARTED_S = 30.0
# Characters of a worker's error in a message.
_ERROR_LENGTH = 400
_log = logging.getLogger(__name__)


def train(
    given: WorkerInput,
    data: TrainingData,
    plan: WorkerPlan,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochResult], None],
) -> Progress:
    """Train a detector over the cluster; the result holds the weights of the best epoch.

    Each worker encodes its rows on its device. An interrupted training resumes from its last
    checkpoint when it is called again with the same `checkpoints`. Raises NonFiniteLoss, and
    ConnectionError if workers are lost more than `max_failures` times.
    """
    train_rows, held_back = data.train, data.held_back
    assert isinstance(train_rows, RayTables)
    assert isinstance(held_back, RayTables)
    # On the driver's node, so that no other lost node takes the board with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    filesystem, path = checkpoints.storage.arrow_filesystem()
    max_failures = given.training.max_failures
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "input": given,
            "board": board,
            "torch_threads": plan.torch_threads,
        },
        torch_config=TorchConfig(
            timeout_s=math.ceil(watchdog.read_patience(COLLECTIVE, _COLLECTIVE_S)),
        ),
        scaling_config=_scaling(plan),
        run_config=RunConfig(
            name=checkpoints.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
        datasets={"train": train_rows.dataset, "validation": held_back.dataset},
        dataset_config=ray.train.DataConfig(datasets_to_split="all"),
    )
    with _listening(board, on_epoch, plan):
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _explain(error, max_failures) from error
    if (refusal := ray.get(board.refusal.remote())) is not None:
        raise NonFiniteLoss(refusal)
    if result.checkpoint is None:
        raise RuntimeError("the training ended without a checkpoint")
    with result.checkpoint.as_directory() as folder:
        return checkpoint.load(folder)


def _scaling(plan: WorkerPlan) -> ScalingConfig:
    """The workers of the plan, spread over the nodes; fewer while the nodes do not hold them."""
    workers = plan.workers if plan.least == plan.workers else (plan.least, plan.workers)
    return ScalingConfig(  # type: ignore[call-arg]  # its type stubs describe Ray Train 1
        num_workers=workers,  # type: ignore[arg-type]
        placement_strategy="SPREAD",
        elastic_resize_monitor_interval_s=_RESIZE_S,
        use_gpu=bool(plan.gpus),
        resources_per_worker={"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})},
    )


def _explain(error: Exception, allowed: int) -> Exception:
    """The error to raise for a failed training: a ConnectionError if workers were lost."""
    causes = [error, *getattr(error, "worker_failures", {}).values()]
    lost = [cause for cause in causes if isinstance(cause, lost_worker_errors())]
    # Errors of gloo and NCCL have no type of their own.
    unreachable = [cause for cause in causes[1:] if "gloo" in str(cause) or "NCCL" in str(cause)]
    for cause in (*lost, *unreachable):
        return ConnectionError(
            f"training workers were lost, or did not reach each other for {COLLECTIVE} seconds, "
            f"more than {allowed} times; run the same command to resume. The last error: "
            f"{' '.join(str(cause).split())[:_ERROR_LENGTH]}"
        )
    return error


@ray.remote(num_cpus=0)
class Board:
    """Passes finished epochs from the first worker to the driver, and the reason why a worker
    stopped."""

    def __init__(self) -> None:
        import asyncio

        self.epochs: asyncio.Queue[EpochResult | None] = asyncio.Queue()
        self.refused: str | None = None

    async def pin(self, epoch: EpochResult | None) -> None:
        await self.epochs.put(epoch)

    async def next(self) -> EpochResult | None:
        return await self.epochs.get()

    async def refuse(self, why: str) -> None:
        self.refused = self.refused or why

    async def refusal(self) -> str | None:
        return self.refused


def _is_room_missing() -> bool:
    """Whether a placement group waits for resources. One that has them starts its workers."""
    return any(group["state"] == "PENDING" for group in placement_group_table().values())


class _listening:  # noqa: N801 - used as a context manager, like a function
    """Calls `on_epoch` in the driver for each epoch that the workers finish. Logs a warning if the
    cluster has no room for any worker, for which Ray Train waits silently and without limit."""

    def __init__(
        self, board: Any, on_epoch: Callable[[EpochResult], None], plan: WorkerPlan
    ) -> None:
        self.board, self.on_epoch, self.plan = board, on_epoch, plan
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while (epoch := self._next()) is not None:
            self.on_epoch(epoch)

    def _next(self) -> EpochResult | None:
        answer, warned = self.board.next.remote(), False
        while not ray.wait([answer], timeout=_UNSTARTED_S)[0]:
            if not warned and not list_actors(TRAINING_WORKER) and _is_room_missing():
                self._warn()
                warned = True
        epoch: EpochResult | None = ray.get(answer)
        return epoch

    def _warn(self) -> None:
        plan, free = self.plan, ray.available_resources()
        workers = f"{plan.least} to {plan.workers}" if plan.least < plan.workers else plan.workers
        _log.warning(
            "no training worker has started after %.0f s: the training needs %s workers with %g "
            "CPUs and %g GPUs each, and all nodes together have %g CPUs and %g GPUs free; waiting "
            "for more nodes, or for other jobs to end",
            _UNSTARTED_S,
            workers,
            plan.cpus,
            plan.gpus,
            free.get("CPU", 0.0),
            free.get("GPU", 0.0),
        )

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        ray.get(self.board.pin.remote(None))
        self.thread.join()
