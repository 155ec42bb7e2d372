"""Ray Data streams descriptors of splits, not rows, through a pool of actors.

Each actor reads its splits for itself, so that reading, computing and writing overlap in its
threads, and answers with one small document a split (see "Scoring: exactly once" in the design
for what was measured).
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import ray.data
import torch

from cluster.lake.input.splits import Split, Task
from cluster.runtime import watchdog
from cluster.runtime.private_ray import POOL_ACTOR, list_actors
from cluster.runtime.resources import ActorPlan

DaySplit = tuple[str, Split]
OnSplit = Callable[[int], None]  # called with the rows of each split that is done


# Ray Data takes 6 ms a block, and 0.8 ms to make one before the first is worked on: beyond so many
# blocks (25 s), a block has several splits.
_BLOCKS = 4096
# Actors take seconds to start: that a shorter run had fewer than planned is no news.
_NEWS_AFTER_S = 30.0

_context = ray.data.DataContext.get_current()
_context.enable_progress_bars = False  # ours says more
# A pool grows while each actor has more tasks than threads. Ray Data's own threshold, 1.75 tasks a
# thread, is never reached by an actor that has one task more than it has threads (ray#59144).
_context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0


Descriptor = Split | Task | str  # or its document, as JSON


class SplitWorker:
    """Base of what runs in the actors: `answer` turns one split into one JSON-able document.

    `answer` may be called from several threads at once.
    """

    takes: ClassVar[type[Split] | type[Task]] = Split

    def __init__(self, plan: ActorPlan) -> None:
        torch.set_num_threads(plan.torch_threads)
        self.device = torch.device("cuda" if plan.gpus else "cpu")

    def answer(self, day: str, split: Any) -> dict[str, Any]:
        raise TypeError("a SplitWorker says what it does with a split")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"answer": [json.dumps(self.answer(*pair)) for pair in _items(batch, self.takes)]}


def stream(
    splits: Sequence[tuple[str, Descriptor]],
    worker: type[SplitWorker],
    arguments: tuple[Any, ...],
    plan: ActorPlan,
) -> Iterator[dict[str, Any]]:
    """Run `worker(plan, *arguments)` over (day, split or task) pairs; answers come when ready."""
    if splits:
        rows = over(splits, worker, (plan, *arguments), plan).iter_rows()
        for row in watchdog.watched(iter(rows), watchdog.end_pool_actors, watchdog.patience()):
            yield json.loads(row["answer"])


class Pool:
    """How many actors were planned, how many are there, and how many there were at once."""

    def __init__(self, plan: ActorPlan, tasks: int) -> None:
        self.planned = min(plan.actors, tasks)
        self.alive = self.most = 0
        self._began = time.monotonic()

    def look(self) -> None:
        """Count them now; a pool that has grown was planned larger."""
        self.alive = alive()
        self.most = max(self.most, self.alive)
        self.planned = max(self.planned, self.most)

    def warnings(self) -> list[str]:
        """What is to be said when fewer ran than were planned."""
        if self.most == self.planned or time.monotonic() - self._began < _NEWS_AFTER_S:
            return []
        return [
            f"{self.most} of {self.planned} planned actors ran: others use the cluster, or its "
            "nodes have less free than they had"
        ]


def alive() -> int:
    """Actors of this driver's pools that are alive now."""
    return len(list_actors(POOL_ACTOR))


def over(
    splits: Sequence[tuple[str, Descriptor]],
    worker: type[Any],
    arguments: tuple[Any, ...],
    plan: ActorPlan,
) -> ray.data.Dataset:
    """A lazy dataset of what `worker(*arguments)` makes of (day, split) pairs, one by one.

    The pool starts with the actors that the nodes hold, waits for those that do not fit, and where
    the plan `grows`, adds to them when nodes come: Ray Data looks for new ones every 20 s.
    """
    most = max(1, len(splits))
    return ray.data.from_arrow(blocks_of(splits)).map_batches(
        worker,
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


def descriptors(batch: dict[str, np.ndarray]) -> list[tuple[str, Split]]:
    """The (day, split) pairs in a batch of `over`."""
    return _items(batch, Split)


def blocks_of(splits: Sequence[tuple[str, Descriptor]]) -> list[pa.Table]:
    """What Ray Data is given; not `from_items`, which holds a dictionary for each of a million."""
    size = max(1, -(-len(splits) // _BLOCKS))
    return [_block(splits[at : at + size]) for at in range(0, len(splits), size)]


def _block(splits: Sequence[tuple[str, Descriptor]]) -> pa.Table:
    texts = [s if isinstance(s, str) else json.dumps(s.to_document()) for _, s in splits]
    return pa.table({"day": [day for day, _ in splits], "split": texts})


def _items(batch: dict[str, np.ndarray], kind: type[Any]) -> list[tuple[str, Any]]:
    return [
        (str(day), kind.from_document(json.loads(str(item))))
        for day, item in zip(batch["day"], batch["split"], strict=True)
    ]
