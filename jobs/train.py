"""Train a detector: spec, training days, encoder, epochs, calibration, threshold, bundle."""

import time
from dataclasses import dataclass
from pathlib import Path

from cluster.lake.output.schemas import REGISTRY
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.storage.opening import open_store
from cluster.runtime.session import session
from jobs import check
from jobs.champion import load_signer
from jobs.monitoring.live import LiveMetrics
from jobs.spec.detector import check_detector
from jobs.spec.spec import DayRange, Spec
from jobs.terminal.console import say
from jobs.threshold import choose_threshold
from jobs.training.plan import listed, plan_training
from jobs.training.run import TrainingRun
from jobs.training.warm_start import start_of


@dataclass(frozen=True)
class TrainedBundle:
    """What `train` made: the champion (unless told otherwise) and its baselines."""

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


def train(
    spec: Spec,
    *,
    days: DayRange | None = None,
    workers: int | None = None,
    address: str | None = None,
    promote: bool = True,
    start: str | None = None,
    sign_with: Path | None = None,
    metrics: LiveMetrics | None = None,
) -> TrainedBundle:
    """Train the spec's detector and its baselines; the bundle becomes the champion.

    `start` is the id of a bundle, or "champion": its encoder is kept, and its weights are where
    the training starts. `sign_with` is a file with a key that signs the champion.
    """
    started = time.monotonic()
    check_detector(spec)
    signer = load_signer(spec, sign_with) if promote else None
    plan = plan_training(spec, days)
    check.check(spec, plan.snapshots[0].schema, training=True).refuse()
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
    given = None if start is None else start_of(spec, registry, start)
    if given:
        say(f"starting from bundle {given.id}: its encoder is kept")
    say(
        f"training {spec.detector.name} of watch {spec.name} on {listed(plan.days)}: "
        f"{plan.rows:,} rows to learn from, "
        f"{sum(s.rows for _, s in plan.held_back):,} held back"
    )
    with session(address) as where:
        say(where)
        made = TrainingRun(spec, plan, workers or spec.training.workers, given, metrics).run()
    ids = {name: registry.add_bundle(made_bundle.to_files()) for name, made_bundle in made.items()}
    champion = made[""]
    threshold = choose_threshold(registry, champion.id, champion.calibration, spec.policy)
    baselines = {name: ids[name] for name in ids if name}
    if promote:
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
        rows=plan.rows,
        epochs=len(history),
        best_epoch=champion.metadata["best_epoch"] or 0,
        validation_loss=champion.metadata["metrics"].get("validation_loss"),
        rows_per_second=champion.metadata["metrics"].get("rows_per_second", 0.0),
        seconds=time.monotonic() - started,
        promoted=promote,
    )
