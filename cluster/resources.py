"""How many actors and workers, and how much of the machine each gets: plain values."""

from dataclasses import dataclass

import ray

from models.refusal import Refusal

# Splits that one actor has in hand: one is read while one is scored and one is written.
# Measured on two cores: 581k rows/s with three threads, 501k with two actors of one thread.
THREADS = 3
# Left for Ray Data's own tasks beside the training workers: without it a job on a small machine
# waits for ever.
_CPUS_FOR_DATA = 1.0
# CPUs that one actor can use when nothing but CPUs is there: readers, torch and writers together.
_CPUS_PER_ACTOR = 4


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


def plan_actors() -> ActorPlan:
    """A pool for the Ray in use: an actor a GPU, or one for a few CPUs."""
    resources = ray.cluster_resources()
    cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
    actors = gpus or max(1, int(cpus) // _CPUS_PER_ACTOR)
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
