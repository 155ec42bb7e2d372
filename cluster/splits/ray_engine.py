"""The engine on Ray. Ray Data streams splits and tasks, not rows, through a pool of actors.

An actor reads its splits itself, so that its threads read, compute and write side by side. It
answers each task with one small document ("Scoring: exactly once" in the design has the
measurements).
"""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import ray
import ray.data

from cluster.lake.input.splits import Split
from cluster.runtime import watchdog
from cluster.runtime.private_ray import POOL_ACTOR, end_actor, list_actors
from cluster.runtime.ray_nodes import list_nodes
from cluster.runtime.resources import (
    ActorPlan,
    Demand,
    WorkerPlan,
    plan_actors,
    plan_readers,
    plan_workers,
)
from cluster.splits.engine import DaySplit, Engine, Pool, Tables
from cluster.splits.worker import Answer, Document, SplitWorker, TableWorker, Work
from models.masking import masked_errors

# Ray Data takes 6 ms a block, and 0.8 ms to make one before the first is worked on. With more
# splits than this (25 s), a block has several.
_BLOCKS = 4096
# Actors take seconds to start: a shorter run often has fewer than planned.
_WARN_AFTER_S = 30.0
# Share of Ray's object store that kept tables may fill.
_CACHE_SHARE = 0.3

_context = ray.data.DataContext.get_current()
_context.enable_progress_bars = False  # ours says more
# A pool grows while each actor has more tasks than threads. Ray Data's own threshold, 1.75 tasks a
# thread, is never reached by an actor that has one task more than it has threads (ray#59144).
_context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0


class RayEngine(Engine):
    """Workers in actors of Ray Data, on the nodes of the Ray in use."""

    name = "ray"

    def __init__(self, line: str) -> None:
        self.line = line

    def has_gpus(self) -> bool:
        return any(node.gpus for node in list_nodes())

    def plan_actors(
        self, demand: Demand | None = None, remote: bool = False, gpus: bool = False
    ) -> ActorPlan:
        return plan_actors(list_nodes(ask_gpus=gpus), demand, remote)

    def plan_readers(self) -> ActorPlan:
        return plan_readers(list_nodes())

    def plan_workers(self, workers: int, least: int) -> WorkerPlan:
        return plan_workers(list_nodes(), workers, least)

    def cache_bytes(self) -> int:
        room: float = ray.cluster_resources().get("object_store_memory", 0.0)
        return int(room * _CACHE_SHARE)

    def watch(self, plan: ActorPlan, tasks: int) -> Pool:
        return _ActorPool(min(plan.actors, tasks))

    def stream(
        self,
        work: Sequence[tuple[str, Work | str]],
        worker: type[SplitWorker[Work, Answer]],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> Iterator[tuple[str, Answer]]:
        if work:
            rows = _map_over(work, _Actor, (worker, plan, *arguments), plan).iter_rows()
            for row in watchdog.end_when_silent(
                iter(rows), _end_pool_actors, watchdog.read_patience()
            ):
                yield row["day"], worker.answer_type.from_document(json.loads(row["answer"]))

    def make_tables(
        self,
        splits: Sequence[DaySplit],
        worker: type[TableWorker],
        arguments: tuple[Any, ...],
        plan: ActorPlan,
    ) -> "RayTables":
        return RayTables(_map_over(splits, _TableActor, (worker, plan, *arguments), plan))


class RayTables(Tables):
    """A dataset of Ray, in whose object store tables are kept."""

    def __init__(self, dataset: ray.data.Dataset) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[pa.Table]:
        for table in self.dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield cast(pa.Table, table)

    def keep(self) -> "RayTables":
        return RayTables(self.dataset.materialize())

    def count(self) -> int:
        return int(self.dataset.count())

    def sum(self, column: str) -> float:
        return float(cast(float, self.dataset.sum(column)) or 0.0)


class _ActorPool(Pool):
    def __init__(self, planned: int) -> None:
        super().__init__(planned)
        self._began = time.monotonic()

    def count_alive(self) -> int:
        return len(list_actors(POOL_ACTOR))

    def warnings(self) -> list[str]:
        # None was ever counted where all were done before they could be.
        if self.most in (0, self.planned) or time.monotonic() - self._began < _WARN_AFTER_S:
            return []
        return [
            f"{self.most} of {self.planned} planned actors ran: other jobs use the cluster, or its "
            "nodes have less free memory or fewer free CPUs than when the run was planned"
        ]


def _end_pool_actors() -> int:
    """End the actors of this driver's pools, so that Ray starts them again; their number."""
    actors = list_actors(POOL_ACTOR)
    for actor in actors:
        end_actor(actor)
    return len(actors)


class _Actor:
    """A worker in an actor of Ray Data: work and answers are rows with JSON."""

    def __init__(
        self, worker: type[SplitWorker[Any, Any]], plan: ActorPlan, *arguments: Any
    ) -> None:
        self.worker = worker(plan, *arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        pairs = _read_pairs(batch, self.worker.work_type)
        with masked_errors():  # Ray logs what passes
            answers = [self.worker.answer(day, one) for day, one in pairs]
        return {
            "day": [day for day, _ in pairs],
            "answer": [json.dumps(answer.to_document()) for answer in answers],
        }


class _TableActor:
    """A worker in an actor of Ray Data: work is rows with JSON, results are tables."""

    def __init__(self, worker: type[TableWorker], plan: ActorPlan, *arguments: Any) -> None:
        self.worker = worker(plan, *arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> pa.Table:
        with masked_errors():
            return pa.concat_tables(
                [self.worker.read(day, split) for day, split in _read_pairs(batch, Split)]
            )


def _map_over(
    work: Sequence[tuple[str, Document | str]],
    actor: type[Any],
    arguments: tuple[Any, ...],
    plan: ActorPlan,
) -> ray.data.Dataset:
    """A lazy dataset of the results of `actor(*arguments)` on (day, split or task) pairs.

    The pool starts with the actors that the nodes hold, waits for those that do not fit, and where
    the plan `grows`, adds some when nodes come: Ray Data looks for new ones every 20 s.
    """
    most = max(1, len(work))
    return ray.data.from_arrow(make_blocks(work)).map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            min_size=min(plan.actors, most),
            max_size=most if plan.grows else min(plan.actors, most),
            max_tasks_in_flight_per_actor=plan.threads + 1,
            max_concurrent_calls_per_actor=plan.threads,
            enable_true_multi_threading=True,
        ),
        num_cpus=plan.cpus,
        num_gpus=plan.gpus or None,
        memory=plan.memory or None,
    )


def make_blocks(work: Sequence[tuple[str, Document | str]]) -> list[pa.Table]:
    """The work as blocks for Ray Data. (Its `from_items` would hold a dictionary for each pair.)"""
    size = max(1, -(-len(work) // _BLOCKS))
    return [_make_block(work[at : at + size]) for at in range(0, len(work), size)]


def _make_block(work: Sequence[tuple[str, Document | str]]) -> pa.Table:
    texts = [one if isinstance(one, str) else json.dumps(one.to_document()) for _, one in work]
    return pa.table({"day": [day for day, _ in work], "work": texts})


def _read_pairs(batch: dict[str, np.ndarray], kind: type[Work]) -> list[tuple[str, Work]]:
    return [
        (str(day), kind.from_document(json.loads(str(text))))
        for day, text in zip(batch["day"], batch["work"], strict=True)
    ]
