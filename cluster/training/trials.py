"""Trials of a detector's options by Ray Tune: many at once, the worse ones stopped early.

The result of each trial is a JSON document. Tune's own state is pickled and never read back: a
tuning that died resumes with the trials that have no document.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import ASHAScheduler

from cluster.lake.storage.store import Store
from cluster.runtime.threads import set_torch_threads
from models import canonical_json
from models.batch import Batch
from models.detectors.catalog import CATALOG
from models.layout import Layout
from models.refusal import Refusal
from models.selection.ranking import Judge
from models.training.loop import learn
from models.training.options import TrainingOptions
from models.training.progress import EpochResult

_RESULTS, _STATE = "results", "state"


@dataclass(frozen=True)
class Trial:
    """Options of a detector, and the result of training with them."""

    number: int
    options: dict[str, Any]
    auroc: float | None = None  # None if the options were refused
    epochs: int = 0
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Subject:
    """What all trials share."""

    detector: str
    layout: Layout
    training: TrainingOptions
    rows: Batch
    held_back: Batch


def run_trials(
    subject: Subject,
    trials: Sequence[Trial],
    store: Store,
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
    """Run the trials that have no result in `store`; all trials with their results, in order.

    Successive halving (Li et al., MLSys 2020, "A System for Massively Parallel Hyperparameter
    Tuning"): after 1, 3, 9, … epochs the worse two thirds stop.
    """
    done = {trial.number: trial for trial in _read_results(store) if _is_asked(trials, trial)}
    for trial in done.values():
        on_trial(trial)
    left = [trial for trial in trials if trial.number not in done]
    if left:
        listener = _Listener(left, store, on_trial)
        _run(subject, left, store, listener)
        done |= listener.done
        store.delete_all(_STATE)
    return [done[trial.number] for trial in trials if trial.number in done]


def _is_asked(trials: Sequence[Trial], stored: Trial) -> bool:
    """Whether a trial with this number has the options of the stored one."""
    return any(t.number == stored.number and t.options == stored.options for t in trials)


def _read_results(store: Store) -> list[Trial]:
    found = store.list(_RESULTS)
    return [Trial(**canonical_json.decode(store.read(one.key), one.key)) for one in found]


def _run(
    subject: Subject,
    trials: Sequence[Trial],
    store: Store,
    listener: "_Listener",
) -> None:
    filesystem, path = store.arrow_filesystem()
    gpus = ray.cluster_resources().get("GPU", 0)
    trainable = tune.with_parameters(_train, subject=subject)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1, "gpu": 1 if gpus else 0}),
        param_space={"trial": tune.grid_search([asdict(trial) for trial in trials])},
        tune_config=tune.TuneConfig(
            metric="auroc",
            mode="max",
            scheduler=ASHAScheduler(max_t=subject.training.epochs + 1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(
            name=_STATE,
            storage_path=path,
            storage_filesystem=filesystem,
            callbacks=[listener],
            verbose=0,
        ),
    )
    if errors := tuner.fit().errors:
        raise errors[0]  # a fault, not a refusal; the results of the other trials are kept


class _Listener(tune.Callback):
    """Keeps the result of each trial as it ends, in the driver."""

    def __init__(
        self, trials: Sequence[Trial], store: Store, on_trial: Callable[[Trial], None]
    ) -> None:
        self.trials = {trial.number: trial for trial in trials}
        self.store, self.on_trial = store, on_trial
        self.done: dict[int, Trial] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks, and a progress bar cannot be pickled.
        return {}

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any
    ) -> None:
        last = trial.last_result
        result = Trial(
            **trial.config["trial"]
            | {
                "auroc": last["auroc"] if not last["note"] else None,
                "epochs": last["epochs"],
                "seconds": round(last["seconds"], 2),
                "note": last["note"],
            }
        )
        self.done[result.number] = result
        self.store.put(f"{_RESULTS}/{result.number:05}.json", canonical_json.encode(asdict(result)))
        self.on_trial(result)


def _train(config: dict[str, Any], subject: Subject) -> None:
    """One trial, in a process of its own; reports its AUROC after each epoch."""
    started = time.monotonic()
    set_torch_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows, held_back = subject.rows.to(device), subject.held_back.to(device)
    epochs = 0

    def report(auroc: float, note: str = "") -> None:
        seconds = time.monotonic() - started
        tune.report({"auroc": auroc, "epochs": epochs, "seconds": seconds, "note": note})

    try:
        judge = Judge(subject.layout, held_back, subject.training.seed)
        torch.manual_seed(subject.training.seed)
        options = config["trial"]["options"]
        detector = CATALOG.build(subject.detector, subject.layout, options).to(device)

        def judge_epoch(result: EpochResult) -> None:
            nonlocal epochs
            epochs = result.epoch
            with torch.no_grad():
                detector.calibrate([held_back])
            report(judge(detector))

        learn(detector, rows, held_back, subject.training, judge_epoch)
        report(judge(detector))  # with the weights of the best epoch
    except Refusal as refusal:
        report(0.0, str(refusal))
