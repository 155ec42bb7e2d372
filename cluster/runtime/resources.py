"""How many actors and workers, and how much of a node each gets: plain values from plain values.

Ray places by request: what is reserved for one actor decides how many each node holds, also a node
that comes later. So a plan is one request that is right for every shape of node, and the count is
what the nodes hold of it; an average over different nodes would overload the small ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.runtime.nodes import Node, Request, describe_nodes
from models.refusal import Refusal

# Splits that one actor of a GPU has in hand: one is read while one is scored and one is written.
THREADS = 3
# Ray and torch before the first row, in each actor.
_PROCESS_BYTES = 600 * 1024**2
# Decoded Arrow takes about this much more than Parquet's own uncompressed size (offsets, validity,
# the encoder's matrix); measured on the demo's flows.
_DECODED = 2.0
# CUDA's context and libraries take about this much of a GPU in each process that uses it.
_CONTEXT_BYTES = 700 * 1024**2
# Of a GPU's memory, so much is planned with: the rest is lost between blocks of other sizes.
_GPU_FILL = 0.85
# Actors of a small detector that share a GPU, at most. A process reads and encodes for it behind
# one Python lock; beyond four of them the GPU waits for CPUs, which nodes have 8 of for each GPU.
_SHARES = (4, 2)
# CPUs that one reader beside a training uses: reading and encoding together.
_CPUS_PER_READER = 4
# What Ray reserves for such a reader: it waits for the workers most of the time.
_READER_CPUS = 0.5
# What Ray may reserve for a training worker, below one CPU: halves and quarters add up exactly.
_SMALL_SHARES = (0.5, 0.25)


@dataclass(frozen=True)
class Demand:
    """The memory that the work of one actor takes, in bytes."""

    split: int = 0  # the largest split, uncompressed, as its Parquet file says
    weights: int = 0  # the detector's and the encoder's
    batch: int = 0  # computing one batch, measured (`models.training.memory`)

    def memory(self, threads: int) -> int:
        """Of an actor with so many splits in hand."""
        held = int(_DECODED * self.split) + self.batch
        return _PROCESS_BYTES + self.weights + threads * held

    def gpu_memory(self, threads: int) -> int:
        """Of the GPU, in an actor that computes there."""
        return _CONTEXT_BYTES + self.weights + threads * self.batch


@dataclass(frozen=True)
class ActorPlan:
    """A pool of actors over splits."""

    actors: int  # that the nodes hold now
    threads: int  # splits in hand in each
    cpus: float  # what Ray reserves for each
    gpus: float
    torch_threads: int
    memory: int = 0  # bytes that Ray reserves for each; 0 reserves none
    grows: bool = False  # whether the pool takes the room of nodes that come later


@dataclass(frozen=True)
class WorkerPlan:
    """The DDP workers of a training."""

    workers: int  # at most
    cpus: float  # what Ray reserves for each
    gpus: float
    torch_threads: int
    least: int  # fewer than this wait for a node; as many as `workers` where none may leave
    memory: int = 0  # bytes of a node that each may fill; 0 where the node does not say


def plan_actors(
    nodes: Sequence[Node], demand: Demand | None = None, remote: bool = False
) -> ActorPlan:
    """A pool for these nodes: on GPUs where there are any, else an actor a CPU.

    One kind of device for all actors, since the scores of a GPU and of a CPU differ in their last
    bits. On CPUs, threads of one process wait for each other (Python's lock, page faults): on two
    cores, 1.08 M rows/s with one thread, 0.87 M with two or three, about 2 M with two processes.
    Where the input is `remote` a second one fetches while the first computes. Memory bounds the
    threads first, then the actors. Refused where no node holds one actor.
    """
    demand = demand or Demand()
    if any(node.gpus for node in nodes):
        plans = [_gpu_actors(nodes, demand, threads) for threads in range(THREADS, 0, -1)]
    else:
        most = 2 if remote else 1
        plans = [_cpu_actors(nodes, demand, threads) for threads in range(most, 0, -1)]
    best = max(plan.actors for plan in plans)
    if best == 0:
        need = demand.memory(1)
        raise Refusal(
            f"an actor needs 1 CPU and {need / 1024**2:,.0f} MiB, which no node has of "
            f"{describe_nodes(nodes)} with {max(n.memory for n in nodes) / 1024**2:,.0f} MiB at "
            "most: use larger nodes, or write the input in smaller row groups"
        )
    return next(plan for plan in plans if plan.actors == best)


def _cpu_actors(nodes: Sequence[Node], demand: Demand, threads: int) -> ActorPlan:
    # A node of less than one CPU holds an actor, too.
    request = Request(min(1.0, max(node.cpus for node in nodes)), memory=demand.memory(threads))
    return _pool(nodes, request, threads, torch_threads=1)


def _gpu_actors(nodes: Sequence[Node], demand: Demand, threads: int) -> ActorPlan:
    with_gpus = [node for node in nodes if node.gpus]
    a_gpu = min(node.cpus / node.gpus for node in with_gpus)
    shares = (n for n in _SHARES if _share(with_gpus, demand, n))
    actors = next(shares, 1)
    request = Request(min(1.0, a_gpu / (2 * actors)), 1 / actors, demand.memory(threads))
    return _pool(nodes, request, threads, max(1, int(a_gpu) // (2 * actors)))


def _share(nodes: Sequence[Node], demand: Demand, actors: int) -> bool:
    """Whether so many actors have room on one GPU of every node, and CPUs to feed it."""
    need = actors * demand.gpu_memory(THREADS)
    return demand.batch > 0 and all(
        node.gpu_memory * _GPU_FILL >= need and node.cpus >= node.gpus * actors for node in nodes
    )


def _pool(nodes: Sequence[Node], request: Request, threads: int, torch_threads: int) -> ActorPlan:
    return ActorPlan(
        actors=sum(request.fits(node) for node in nodes),
        threads=threads,
        cpus=request.cpus,
        gpus=request.gpus,
        torch_threads=torch_threads,
        memory=request.memory,
        grows=True,
    )


def plan_readers(nodes: Sequence[Node]) -> ActorPlan:
    """A pool that reads beside training workers, and leaves them the GPUs and most of the CPUs."""
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


def plan_workers(nodes: Sequence[Node], workers: int, least: int = 1) -> WorkerPlan:
    """DDP workers, each on a node of its own where there are enough, that leave the readers room.

    On several nodes the count may fall to `least` when one leaves, and rise again; on one there is
    nothing to go on with. Refused where they do not fit.
    """
    if any(node.gpus for node in nodes):
        return _gpu_workers(nodes, workers, least)
    readers = plan_readers(nodes)
    reader = Request(readers.cpus)
    largest = int(max(node.cpus for node in nodes))
    for cpus in (*range(largest, 0, -1), *_SMALL_SHARES):
        counts = place_evenly(nodes, Request(float(cpus)), workers)
        if counts is None:
            continue
        left = [Request(float(cpus)).left(n, count) for n, count in zip(nodes, counts, strict=True)]
        # Room on every node, as any may be the last that is left.
        if all(reader.fits(node) for node in left):
            threads = min(int(n.cpus) // c for n, c in zip(nodes, counts, strict=True) if c)
            # The readers are on the same nodes, and so is one process more of each worker's data.
            memory = min(n.memory // (c + 1) for n, c in zip(nodes, counts, strict=True) if c)
            kept = workers if len(nodes) == 1 else min(least, workers)
            room = max(0, memory - _PROCESS_BYTES)
            return WorkerPlan(workers, float(cpus), 0.0, max(1, threads), kept, room)
    smallest = Request(_SMALL_SHARES[-1])
    most = sum(smallest.fits(reader.left(node, 1)) for node in nodes)
    raise Refusal(
        f"{workers} training workers do not fit {describe_nodes(nodes)}, of which "
        f"{reader.cpus:g} CPUs a node stay with the readers: pass --workers {max(1, most)} or fewer"
    )


def _gpu_workers(nodes: Sequence[Node], workers: int, least: int) -> WorkerPlan:
    with_gpus = [node for node in nodes if node.gpus]
    gpus = sum(node.gpus for node in with_gpus)
    if workers > gpus:
        raise Refusal(
            f"{workers} training workers need {workers} GPUs and the cluster has {gpus}: "
            f"pass --workers {gpus} or fewer"
        )
    # Half of a GPU's CPUs are for the worker, half for the readers.
    a_gpu = min(node.cpus / node.gpus for node in with_gpus)
    kept = workers if len(nodes) == 1 else min(least, workers)
    return WorkerPlan(workers, max(0.25, a_gpu // 2), 1.0, max(1, int(a_gpu)), kept)


def place_evenly(nodes: Sequence[Node], request: Request, count: int) -> list[int] | None:
    """How many each node gets when they are placed one by one where the fewest are; None where
    they do not fit."""
    held = [0] * len(nodes)
    for _ in range(count):
        free = [n for n, node in enumerate(nodes) if request.fits(node) > held[n]]
        if not free:
            return None
        held[min(free, key=lambda n: held[n])] += 1
    return held
