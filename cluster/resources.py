"""How many actors and workers, and how much of the machine each gets: plain values."""

from dataclasses import dataclass

import ray

from models.refusal import Refusal

# Splits that one actor of a GPU has in hand: one is read while one is scored and one is written.
THREADS = 3
# CPUs that one reader beside a training uses: reading and encoding together.
_CPUS_PER_READER = 4
# Left for Ray Data's own tasks beside the training workers: without it a job on a small machine
# waits for ever.
_CPUS_FOR_DATA = 1.0


@dataclass(frozen=True)
class ActorPlan:
    """A pool of actors over splits."""

    actors: int
    threads: int  # splits in hand in each
    cpus: float  # what Ray reserves for each
    gpus: float
    torch_threads: int


@dataclass(frozen=True)
class WorkerPlan:
    """The DDP workers of a training."""

    workers: int
    cpus: float  # what Ray reserves for each
    gpus: float
    torch_threads: int


def plan_actors(remote: bool = False) -> ActorPlan:
    """A pool for the Ray in use: an actor a GPU, fed by several threads; else an actor a CPU.

    On CPUs, threads of one process wait for each other (Python's lock, page faults): on two
    cores, 1.08 M rows/s with one thread, 0.87 M with two or three, about 2 M with two processes.
    Where the input is `remote` a second one fetches while the first computes.
    """
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
    if gpus:
        share = max(1, int(cpus) // gpus)
        return ActorPlan(gpus, THREADS, min(1.0, cpus / (2 * gpus)), 1.0, max(1, share // 2))
    actors = max(1, int(cpus))
    threads = 2 if remote else 1
    return ActorPlan(actors, threads, min(1.0, cpus / (2 * actors)), gpus=0, torch_threads=1)


def plan_readers() -> ActorPlan:
    """A pool that reads beside training workers, and leaves them most of the CPUs."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
    actors = gpus or max(1, int(cpus) // _CPUS_PER_READER)
    share = max(1, int(cpus) // actors)
    return ActorPlan(
        actors=actors,
        threads=THREADS,
        cpus=min(1.0, cpus / (2 * actors)),
        gpus=1.0 if gpus else 0.0,
        torch_threads=max(1, share // 2),
    )


def plan_workers(workers: int) -> WorkerPlan:
    """DDP workers that fit beside Ray Data's tasks; refused when they do not."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
    if gpus and workers > gpus:
        raise Refusal(
            f"{workers} training workers need {workers} GPUs and the cluster has {gpus}: "
            f"pass --workers {gpus} or fewer"
        )
    most = max(1, int((cpus - _CPUS_FOR_DATA) / 0.5)) if cpus > 1 else 1
    if workers > most:
        raise Refusal(
            f"{workers} training workers do not fit {cpus:g} CPUs, of which {_CPUS_FOR_DATA:g} "
            f"stays with the readers: pass --workers {most} or fewer"
        )
    available = cpus - _CPUS_FOR_DATA if cpus > 1 else 0.5
    share = min(available / workers, float(max(1, int(available / workers))))
    return WorkerPlan(
        workers=workers,
        cpus=round(share, 2),
        gpus=1.0 if gpus else 0.0,
        torch_threads=max(1, int(cpus) // workers),
    )
