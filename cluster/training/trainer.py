"""Train a detector with DDP: Ray Train runs `cluster.training.worker` in each worker, Ray Data
streams the rows to them."""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.lake.storage.store import Store
from cluster.runtime import watchdog
from cluster.runtime.private_ray import TRAINING_WORKER, list_actors, lost_worker_errors
from cluster.runtime.resources import WorkerPlan
from cluster.training import checkpoint
from cluster.training.dataset import TrainingData
from cluster.training.worker import WorkerInput, train_worker
from models.training.options import NonFiniteLoss
from models.training.progress import EpochResult, Progress

# A worker gives up waiting for the others after this. A node that is lost is noticed by Ray, within
# a minute; this is for one that lives and is not reached by its peers, for which Ray's default is
# 30 min. It has to be longer than a store keeps one worker waiting for its rows.
_COLLECTIVE_S = 120.0
COLLECTIVE = "ANOMARAY_COLLECTIVE_SECONDS"
# A node that came is taken in after this, at the cost of starting the workers anew (some 10 s).
_RESIZE_S = 30.0
# Workers start in 10 s where there is room: without any for so long, the wait is told.
_UNSTARTED_S = 30.0
# Of the error that ended a training with its workers, so many characters are said.
_SAID = 400
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoints:
    """Where a training keeps its state, so that it can go on after an interruption."""

    storage: Store
    name: str  # of the training: the same for the same spec and data


def train(
    given: WorkerInput,
    data: TrainingData,
    plan: WorkerPlan,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochResult], None],
) -> Progress:
    """Minimise the detector's loss over the training rows, with the weights of the epoch that is
    best on the held-back rows as the result.

    Each worker encodes its rows on its device. A training that was interrupted goes on from its
    last checkpoint when it is called again with the same `checkpoints`. Raises NonFiniteLoss, and
    ConnectionError where workers were lost more often than `max_failures` times.
    """
    # Beside the driver: anywhere else it would be lost with its node.
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
        datasets={"train": data.train, "validation": data.held_back},
        dataset_config=ray.train.DataConfig(datasets_to_split="all"),
    )
    with _listening(board, on_epoch, plan):
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _plain(error, max_failures) from error
    if (refusal := ray.get(board.refusal.remote())) is not None:
        raise NonFiniteLoss(refusal)
    if result.checkpoint is None:
        raise RuntimeError("the training ended without a checkpoint")
    with result.checkpoint.as_directory() as folder:
        return checkpoint.load(folder)


def _scaling(plan: WorkerPlan) -> ScalingConfig:
    """Workers on as many nodes as there are; as many workers as the nodes hold, within the plan."""
    workers = plan.workers if plan.least == plan.workers else (plan.least, plan.workers)
    return ScalingConfig(  # type: ignore[call-arg]  # its stubs are those of Ray Train 1
        num_workers=workers,  # type: ignore[arg-type]
        placement_strategy="SPREAD",
        elastic_resize_monitor_interval_s=_RESIZE_S,
        use_gpu=bool(plan.gpus),
        resources_per_worker={"CPU": plan.cpus, **({"GPU": plan.gpus} if plan.gpus else {})},
    )


def _plain(error: Exception, allowed: int) -> Exception:
    """What ended the training: workers that were lost, or else the error itself."""
    causes = [error, *getattr(error, "worker_failures", {}).values()]
    lost = [cause for cause in causes if isinstance(cause, lost_worker_errors())]
    # Those of gloo and NCCL have no type of their own.
    unheard = [cause for cause in causes[1:] if "gloo" in str(cause) or "NCCL" in str(cause)]
    for cause in (*lost, *unheard):
        return ConnectionError(
            f"workers of the training were lost, or did not reach each other for {COLLECTIVE} "
            f"seconds, more often than the {allowed} times that they are begun anew, at last: "
            f"{' '.join(str(cause).split())[:_SAID]}"
        )
    return error


@ray.remote(num_cpus=0)
class Board:
    """Where the first worker pins up its progress for the driver to read, and any of them why it
    can't go on."""

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


class _listening:  # noqa: N801 - used as a context manager, like a function
    """Call `on_epoch` in the driver for each epoch that the workers finish, and say so where the
    cluster has no room for any worker: Ray Train waits without limit, and without a word."""

    def __init__(
        self, board: Any, on_epoch: Callable[[EpochResult], None], plan: WorkerPlan
    ) -> None:
        self.board, self.on_epoch, self.plan = board, on_epoch, plan
        self.thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        while (epoch := self._next()) is not None:
            self.on_epoch(epoch)

    def _next(self) -> EpochResult | None:
        answer, told = self.board.next.remote(), False
        while not ray.wait([answer], timeout=_UNSTARTED_S)[0]:
            if not told and not list_actors(TRAINING_WORKER):
                self._tell()
                told = True
        epoch: EpochResult | None = ray.get(answer)
        return epoch

    def _tell(self) -> None:
        plan, free = self.plan, ray.available_resources()
        asked = f"{plan.least} to {plan.workers}" if plan.least < plan.workers else plan.workers
        _log.warning(
            "no worker of the training runs, %.0f s after one was asked for: it takes %s of %g "
            "CPUs and %g GPUs each, and all nodes together have %g CPUs and %g GPUs free; waiting "
            "for nodes to come, or for others to end",
            _UNSTARTED_S,
            asked,
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
