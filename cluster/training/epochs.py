"""The epochs of a training, on the engine that was chosen."""

from collections.abc import Callable

from cluster.runtime.resources import WorkerPlan
from cluster.splits.engine import Engine
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData
from cluster.training.rank import WorkerInput
from models.training.progress import EpochResult, Progress


def train(
    engine: Engine,
    given: WorkerInput,
    data: TrainingData,
    plan: WorkerPlan,
    checkpoints: Checkpoints,
    on_epoch: Callable[[EpochResult], None],
) -> Progress:
    """Train a detector; the result holds the weights of the best epoch.

    An interrupted training resumes from its last checkpoint when it is called again with the same
    `checkpoints` on the same engine. Raises NonFiniteLoss, and ConnectionError if workers are lost
    more than `max_failures` times.
    """
    if engine.name == "ray":
        from cluster.training import trainer

        return trainer.train(given, data, plan, checkpoints, on_epoch)
    from cluster.training import local_trainer

    return local_trainer.train(given, data, plan, checkpoints, on_epoch)
