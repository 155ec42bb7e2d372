"""Train a detector: plan the days, fit, train, calibrate, and add the bundle to the registry."""

import time
from dataclasses import dataclass
from pathlib import Path

from cluster.lake.days import DayRange
from cluster.lake.output.schemas import REGISTRY
from cluster.lake.registry.registry import Promotion, Registry
from cluster.splits.engine import EngineName
from cluster.splits.opening import open_engine
from jobs import check
from jobs.champion import load_signer
from jobs.monitoring.live import LiveMetrics
from jobs.output import open_own_output
from jobs.spec.detector import check_detector
from jobs.spec.spec import Spec
from jobs.terminal.console import say, warn
from jobs.threshold import choose_threshold
from jobs.training.plan import format_days, plan_training
from jobs.training.run import TrainingRun
from jobs.training.warm_start import load_start


@dataclass(frozen=True)
class TrainedBundle:
    """The result of `train`: the bundle, its threshold and its baselines."""

    bundle: str
    threshold: str
    baselines: dict[str, str]
    days: tuple[str, ...]
    rows: int
    epochs: int
    best_epoch: int
    validation_loss: float | None
    rows_per_second: float
    seconds: float
    promoted: bool


@dataclass(frozen=True)
class TrainRequest:
    """How one training differs from its spec, and where it runs."""

    days: DayRange | None = None  # to train on, instead of the spec's
    workers: int | None = None  # DDP workers, instead of the spec's
    address: str | None = None  # of a running Ray
    engine: EngineName | None = None  # None: local, unless a cluster or several workers are asked
    promote: bool = True  # make the bundle the champion
    start: str | None = None  # bundle to start from: its id, or "champion"
    sign_with: Path | None = None  # file with the key that signs the champion


def train(
    spec: Spec, request: TrainRequest | None = None, metrics: LiveMetrics | None = None
) -> TrainedBundle:
    """Train the spec's detector and its baselines; the bundle becomes the champion.

    Raises Refusal if the spec does not fit the data, or if the loss is not finite.
    """
    started = time.monotonic()
    request = request or TrainRequest()
    check_detector(spec)
    signer = load_signer(spec, request.sign_with) if request.promote else None
    registry = Registry(open_own_output(spec).child(REGISTRY))
    plan = plan_training(spec, request.days)
    for file in (file for taken in plan.snapshots for file in taken.misnamed):
        warn("set aside", file.message)
    check.agree_on_schema(spec, plan.snapshots, training=True)
    given = None if request.start is None else load_start(spec, registry, request.start)
    if given:
        say(f"starting from bundle {given.id}: its encoder is kept")
    say(
        f"training {spec.detector.name} of watch {spec.name} on {format_days(plan.days)}: "
        f"{plan.rows:,} rows to train on, "
        f"{sum(s.rows for _, s in plan.held_back):,} held back"
        f"{', before the filter' if spec.input.filter or spec.training.filter else ''}"
    )
    workers = request.workers or spec.training.workers
    with open_engine(request.address, request.engine, workers) as engine:
        say(engine.line)
        made = TrainingRun(engine, spec, plan, workers, given, metrics).run()
    ids = {name: registry.add_bundle(made_bundle.files) for name, made_bundle in made.items()}
    champion = made[""]
    threshold = choose_threshold(registry, champion.id, champion.calibration, spec.policy)
    baselines = {name: ids[name] for name in ids if name}
    if request.promote:
        promotion = Promotion(
            bundle=champion.id,
            threshold=threshold.id,
            note="trained",
            baselines=baselines,
            digests={one.id: one.digest for one in made.values()},
        )
        registry.promote(promotion, signer)
    history = champion.metadata["history"]
    return TrainedBundle(
        bundle=champion.id,
        threshold=threshold.id,
        baselines=baselines,
        days=plan.days,
        rows=champion.metadata["training"]["rows"],
        epochs=len(history),
        best_epoch=champion.metadata["best_epoch"] or 0,
        validation_loss=champion.metadata["metrics"].get("validation_loss"),
        rows_per_second=champion.metadata["metrics"].get("rows_per_second", 0.0),
        seconds=time.monotonic() - started,
        promoted=request.promote,
    )
