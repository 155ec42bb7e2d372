"""Pure functions that size actors and workers (docs/decisions/actor-plans.md).

A plan makes the same request to Ray for each actor, and the request decides how many actors a node
holds, also a node that comes later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.runtime.nodes import Node, Request, describe_nodes
from models.refusal import Refusal

# Splits in hand of an actor on a GPU: one is read, one is scored, one is written.
THREADS = 3
# Ray and torch take this much in each actor before the first row.
_PROCESS_BYTES = 600 * 1024**2
# Size of decoded Arrow (offsets, validity, the encoder's matrix), as a multiple of Parquet's own
# uncompressed size; measured on the demo's flows.
_DECODED = 2.0
# CUDA's context and libraries take this much of a GPU in each process.
_CONTEXT_BYTES = 700 * 1024**2
# Share of a GPU's memory that is planned with; the rest is lost between blocks.
_GPU_FILL = 0.85
# Actors of a small detector that may share a GPU. With more, the GPU waits for CPUs, of which nodes
# have about 8 a GPU.
_SHARES = (4, 2)
# CPUs that one reader uses beside a training, for reading and encoding.
_CPUS_PER_READER = 4
# CPUs that Ray reserves for a reader, which mostly waits for the workers.
_READER_CPUS = 0.5
# CPUs below one that Ray may reserve for a training worker; halves and quarters add up exactly.
_SMALL_SHARES = (0.5, 0.25)


@dataclass(frozen=True)
class Demand:
    """The memory that one actor needs, in bytes."""

    split: int = 0  # the largest split, uncompressed, by its Parquet footer
    weights: int = 0  # of detector and encoder
    batch: int = 0  # the detector's measured memory for one batch (`models.training.memory`)

    def memory(self, threads: int) -> int:
        """Bytes of an actor with this many splits in hand."""
        held = int(_DECODED * self.split) + self.batch
        return _PROCESS_BYTES + self.weights + threads * held

    def gpu_memory(self, threads: int) -> int:
        """Bytes of the GPU that an actor on it needs."""
        return _CONTEXT_BYTES + self.weights + threads * self.batch


@dataclass(frozen=True)
class ActorPlan:
    """A pool of actors that work on splits."""

    actors: int  # as many as the nodes hold now
    threads: int  # splits in hand, in each actor
    cpus: float  # that Ray reserves for each
    gpus: float
    torch_threads: int
    memory: int = 0  # bytes that Ray reserves for each; 0 for none
    grows: bool = False  # whether the pool grows when nodes come
    computing: int = 1  # threads of an actor without a GPU that compute at once


@dataclass(frozen=True)
class WorkerPlan:
    """The DDP workers of a training."""

    workers: int  # at most
    cpus: float  # that Ray reserves for each
    gpus: float
    torch_threads: int
    least: int  # the training waits while fewer than this fit
    memory: int = 0  # bytes that each may use; 0 if unknown


def plan_actors(
    nodes: Sequence[Node], demand: Demand | None = None, remote: bool = False
) -> ActorPlan:
    """A pool for these nodes: actors on GPUs if there are any, otherwise an actor a CPU.

    With a `remote` input each actor on a CPU has a second thread, which fetches while the first one
    computes. If memory is short, threads are reduced first, then actors. Raises Refusal if no node
    holds one actor.
    """
    demand = demand or Demand()
    if any(node.gpus for node in nodes):
        plans = [_plan_gpu_actors(nodes, demand, threads) for threads in range(THREADS, 0, -1)]
    else:
        most = 2 if remote else 1
        plans = [_plan_cpu_actors(nodes, demand, threads) for threads in range(most, 0, -1)]
    best = max(plan.actors for plan in plans)
    if best == 0:
        need = demand.memory(1)
        raise Refusal(
            f"an actor needs 1 CPU and {need / 1024**2:,.0f} MiB, and no node has that: found "
            f"{describe_nodes(nodes)} with {max(n.memory for n in nodes) / 1024**2:,.0f} MiB at "
            "most; use larger nodes, or write the input in smaller row groups"
        )
    return next(plan for plan in plans if plan.actors == best)


def _plan_cpu_actors(nodes: Sequence[Node], demand: Demand, threads: int) -> ActorPlan:
    # A node with less than one CPU holds an actor, too.
    request = Request(min(1.0, max(node.cpus for node in nodes)), memory=demand.memory(threads))
    return _make_pool(nodes, request, threads, torch_threads=1)


def _plan_gpu_actors(nodes: Sequence[Node], demand: Demand, threads: int) -> ActorPlan:
    with_gpus = [node for node in nodes if node.gpus]
    a_gpu = min(node.cpus / node.gpus for node in with_gpus)
    shares = (n for n in _SHARES if _can_share(with_gpus, demand, n))
    actors = next(shares, 1)
    request = Request(min(1.0, a_gpu / (2 * actors)), 1 / actors, demand.memory(threads))
    return _make_pool(nodes, request, threads, max(1, int(a_gpu) // (2 * actors)))


def _can_share(nodes: Sequence[Node], demand: Demand, actors: int) -> bool:
    """Whether each GPU has memory for this many actors, and its node enough CPUs."""
    need = actors * demand.gpu_memory(THREADS)
    return demand.batch > 0 and all(
        node.gpu_memory * _GPU_FILL >= need and node.cpus >= node.gpus * actors for node in nodes
    )


def _make_pool(
    nodes: Sequence[Node], request: Request, threads: int, torch_threads: int
) -> ActorPlan:
    return ActorPlan(
        actors=sum(request.count_on(node) for node in nodes),
        threads=threads,
        cpus=request.cpus,
        gpus=request.gpus,
        torch_threads=torch_threads,
        memory=request.memory,
        grows=True,
    )


def plan_readers(nodes: Sequence[Node]) -> ActorPlan:
    """A pool that reads beside a training, without GPUs and with few CPUs."""
    cpus = sum(node.cpus for node in nodes)
    gpus = sum(node.gpus for node in nodes)
    actors = gpus or max(1, int(cpus) // _CPUS_PER_READER)
    return ActorPlan(
        actors=actors,
        threads=THREADS,
        cpus=min(_READER_CPUS, cpus / (2 * actors)),
        gpus=0.0,
        torch_threads=max(1, int(cpus) // actors // 2),
    )


def plan_threads(node: Node, demand: Demand, remote: bool = False) -> ActorPlan:
    """One worker in this process, with a thread a CPU; two with a `remote` input, of which one
    fetches while the other computes, and at least `THREADS` with a GPU.

    If memory is short there are fewer. Raises Refusal if it does not hold one.
    """
    cpus = max(1, int(node.cpus))
    most = max(THREADS, cpus) if node.gpus else cpus * (2 if remote else 1)
    threads = next((n for n in range(most, 0, -1) if demand.memory(n) <= node.memory), 0)
    if threads == 0:
        raise Refusal(
            f"scoring needs {demand.memory(1) / 1024**2:,.0f} MiB, and this process may use "
            f"{node.memory / 1024**2:,.0f} MiB: use a larger machine, or write the input in "
            "smaller row groups"
        )
    return ActorPlan(
        actors=1,
        threads=threads,
        cpus=node.cpus,
        gpus=float(node.gpus > 0),
        torch_threads=max(1, cpus // 2) if node.gpus else 1,
        memory=demand.memory(threads),
        computing=min(cpus, threads),
    )


def plan_local_readers(node: Node) -> ActorPlan:
    """One reader in this process, with a thread a CPU and one that waits for the store."""
    cpus = max(1, int(node.cpus))
    return ActorPlan(1, cpus + 1, node.cpus, 0.0, torch_threads=1, computing=cpus)


def plan_local_worker(node: Node) -> WorkerPlan:
    """A training in this process."""
    room = max(0, node.memory - _PROCESS_BYTES)
    cpus = max(1, int(node.cpus))
    return WorkerPlan(1, node.cpus, float(node.gpus > 0), cpus, 1, room)


def plan_workers(nodes: Sequence[Node], workers: int, least: int = 1) -> WorkerPlan:
    """DDP workers spread over the nodes, with room left for the readers.

    On several nodes a training goes on with at least `least` workers when a node is lost. Raises
    Refusal if the workers do not fit.
    """
    if any(node.gpus for node in nodes):
        return _plan_gpu_workers(nodes, workers, least)
    readers = plan_readers(nodes)
    reader = Request(readers.cpus)
    largest = int(max(node.cpus for node in nodes))
    for cpus in (*range(largest, 0, -1), *_SMALL_SHARES):
        counts = place_evenly(nodes, Request(float(cpus)), workers)
        if counts is None:
            continue
        left = [
            Request(float(cpus)).take_from(n, count) for n, count in zip(nodes, counts, strict=True)
        ]
        # Readers need room on every node, as any may be the last one.
        if all(reader.count_on(node) for node in left):
            threads = min(int(n.cpus) // c for n, c in zip(nodes, counts, strict=True) if c)
            # A node also holds readers, which take the memory of one more worker.
            memory = min(n.memory // (c + 1) for n, c in zip(nodes, counts, strict=True) if c)
            kept = workers if len(nodes) == 1 else min(least, workers)
            room = max(0, memory - _PROCESS_BYTES)
            return WorkerPlan(workers, float(cpus), 0.0, max(1, threads), kept, room)
    smallest = Request(_SMALL_SHARES[-1])
    most = sum(smallest.count_on(reader.take_from(node, 1)) for node in nodes)
    raise Refusal(
        f"{workers} training workers do not fit {describe_nodes(nodes)}, where readers need "
        f"{reader.cpus:g} CPUs a node: pass --workers {max(1, most)} or fewer"
    )


def _plan_gpu_workers(nodes: Sequence[Node], workers: int, least: int) -> WorkerPlan:
    with_gpus = [node for node in nodes if node.gpus]
    gpus = sum(node.gpus for node in with_gpus)
    if workers > gpus:
        raise Refusal(
            f"{workers} training workers need {workers} GPUs, and the cluster has {gpus}: "
            f"pass --workers {gpus} or fewer"
        )
    # A worker gets half of a GPU's CPUs, the readers the other half.
    a_gpu = min(node.cpus / node.gpus for node in with_gpus)
    kept = workers if len(nodes) == 1 else min(least, workers)
    return WorkerPlan(workers, max(0.25, a_gpu // 2), 1.0, max(1, int(a_gpu)), kept)


def place_evenly(nodes: Sequence[Node], request: Request, count: int) -> list[int] | None:
    """Number on each node, if each is placed on the node that has the fewest; None if they do not
    fit."""
    held = [0] * len(nodes)
    for _ in range(count):
        free = [n for n, node in enumerate(nodes) if request.count_on(node) > held[n]]
        if not free:
            return None
        held[min(free, key=lambda n: held[n])] += 1
    return held
