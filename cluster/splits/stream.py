"""Ray Data streams splits and tasks, not rows, through a pool of actors.

An actor reads its splits itself, so that its threads read, compute and write side by side. It
answers each task with one small document ("Scoring: exactly once" in the design has the
measurements).
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray.data

from cluster.lake.input.splits import Split
from cluster.runtime import watchdog
from cluster.runtime.private_ray import POOL_ACTOR, list_actors
from cluster.runtime.resources import ActorPlan
from cluster.splits.worker import Answer, Document, SplitWorker, Work

DaySplit = tuple[str, Split]
OnSplit = Callable[[int], None]  # called with the rows of each split that is done

# Ray Data takes 6 ms a block, and 0.8 ms to make one before the first is worked on. With more
# splits than this (25 s), a block has several.
_BLOCKS = 4096
# Actors take seconds to start: a shorter run often has fewer than planned.
_WARN_AFTER_S = 30.0

_context = ray.data.DataContext.get_current()
_context.enable_progress_bars = False  # ours says more
# A pool grows while each actor has more tasks than threads. Ray Data's own threshold, 1.75 tasks a
# thread, is never reached by an actor that has one task more than it has threads (ray#59144).
_context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0


def stream(
    work: Sequence[tuple[str, Work | str]],
    worker: type[SplitWorker[Work, Answer]],
    arguments: tuple[Any, ...],
    plan: ActorPlan,
) -> Iterator[Answer]:
    """Run `worker(plan, *arguments)` on (day, split or task) pairs; answers come when ready.

    A split or task may be given as its JSON text, which takes a third of its memory.
    """
    if work:
        rows = map_over(work, _Actor, (worker, plan, *arguments), plan).iter_rows()
        for row in watchdog.end_when_silent(
            iter(rows), watchdog.end_pool_actors, watchdog.read_patience()
        ):
            yield worker.answer_type.from_document(json.loads(row["answer"]))


class _Actor:
    """A worker in an actor of Ray Data: work and answers are rows with JSON."""

    def __init__(
        self, worker: type[SplitWorker[Any, Any]], plan: ActorPlan, *arguments: Any
    ) -> None:
        self.worker = worker(plan, *arguments)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        pairs = _read_pairs(batch, self.worker.work_type)
        answers = [self.worker.answer(day, one) for day, one in pairs]
        return {"answer": [json.dumps(answer.to_document()) for answer in answers]}


class Pool:
    """The actors of a run: how many were planned, how many are alive, the most at once."""

    def __init__(self, plan: ActorPlan, tasks: int) -> None:
        self.planned = min(plan.actors, tasks)
        self.alive = self.most = 0
        self._began = time.monotonic()

    def look(self) -> None:
        """Count them now. A pool that grew beyond its plan counts as planned larger."""
        self.alive = len(list_actors(POOL_ACTOR))
        self.most = max(self.most, self.alive)
        self.planned = max(self.planned, self.most)

    def warnings(self) -> list[str]:
        """A warning where fewer ran than were planned."""
        if self.most == self.planned or time.monotonic() - self._began < _WARN_AFTER_S:
            return []
        return [
            f"{self.most} of {self.planned} planned actors ran: other jobs use the cluster, or its "
            "nodes have less free memory or fewer free CPUs than when the run was planned"
        ]


def map_over(
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


def read_splits(batch: dict[str, np.ndarray]) -> list[DaySplit]:
    """The (day, split) pairs in a batch that `map_over` hands to an actor."""
    return _read_pairs(batch, Split)


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
