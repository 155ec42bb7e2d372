"""Who trains on each engine."""

from collections.abc import Callable

from cluster.runtime.resources import WorkerPlan
from cluster.splits.engine import Engine
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData
from cluster.training.rank import WorkerInput
from models.training.progress import EpochResult, Progress

OnEpoch = Callable[[EpochResult], None]
# Trains a detector; the result holds the weights of the best epoch. An interrupted training resumes
# from its last checkpoint when it is called again with the same checkpoints on the same engine.
Train = Callable[[WorkerInput, TrainingData, WorkerPlan, Checkpoints, OnEpoch], Progress]


def find_trainer(engine: Engine) -> Train:
    """The function that trains on the engine."""
    if engine.name == "ray":
        from cluster.training.trainer import train as train_by_workers

        return train_by_workers
    from cluster.training.local_trainer import train as train_here

    return train_here
