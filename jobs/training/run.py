"""The steps of one training on a running Ray: encoder, epochs, calibration, bundles."""

import dataclasses
import hashlib
import time
from datetime import UTC, datetime
from typing import Any, Literal, cast

import ray
import ray.data
import torch

from cluster.lake.storage.opening import open_store
from cluster.runtime.nodes import nodes
from cluster.runtime.resources import plan_actors, plan_readers, plan_workers
from cluster.splits.admission import Intake
from cluster.training import dataset
from cluster.training import trainer as ddp
from cluster.training.calibration import calibrate
from cluster.training.encoder_fit import Rows, fit_encoder
from jobs.monitoring.live import LiveMetrics
from jobs.spec.spec import Spec
from jobs.terminal.console import Step, say, step
from jobs.training.auto import choose_detector
from jobs.training.options import training_filter, training_options
from jobs.training.plan import TrainingPlan, listed
from jobs.training.warm_start import Start
from models.bundle import Bundle
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.refusal import Refusal
from models.scores.threshold import Calibration
from models.selection.auto import AUTO, Candidate, Choice
from models.training.memory import of_scoring, of_training

TRAININGS = "_trainings"
# Held-back rows that settle residual scales and the like; more change the fourth digit.
_CALIBRATION_ROWS = 200_000
# Labelled anomalies that a detector of few labels is shown: each worker holds them all.
_SHOWN_ROWS = 10_000
# Share of Ray's object store that encoded training rows may fill; above it, every epoch reads
# the splits again.
_CACHE_SHARE = 0.3


class TrainingRun:
    """The steps of one training, on a running Ray."""

    def __init__(
        self,
        spec: Spec,
        plan: TrainingPlan,
        workers: int,
        start: Start | None = None,
        metrics: LiveMetrics | None = None,
    ) -> None:
        self.spec, self.plan, self.start = spec, plan, start
        self.metrics = metrics or LiveMetrics(spec.name, "train")
        self.detector = Candidate(spec.detector.name, spec.detector.options)
        if start:
            self.detector = Candidate(start.bundle.detector_name, start.bundle.options)
        self.choice: Choice | None = None
        there = nodes()
        self.readers, self.scorers = plan_readers(there), plan_actors(there)
        self.workers = plan_workers(there, workers, spec.training.min_workers)
        self.storage = open_store(spec.output.uri).child(TRAININGS)

    def run(self) -> dict[str, Bundle]:
        """The bundle under "" and those of the baselines under their names."""
        encoder, rows = self.encoder()
        if self.detector.name == AUTO:
            self.choice = self._choice(encoder, rows)
            self.detector = self.choice.winner
        names = [self.detector.name, *self.spec.training.baselines]
        data = self.data(encoder, CATALOG[names[0]].labels)
        held_rows = self._cached(data, encoder, rows)
        detector, facts = self._detector(encoder, data, rows)
        self._settle(encoder, detector, data, rows, held_rows)
        detectors = {"": detector}
        for name in self.spec.training.baselines:
            if name != names[0]:
                detectors[name] = self._baseline(encoder, name, data, rows, held_rows)
        calibrations = self._calibrations(encoder, detectors)
        return {
            name: self._bundle(encoder, name, detectors[name], calibrations[name], facts)
            for name in detectors
        }

    def encoder(self) -> tuple[Encoder, int]:
        """The encoder, and the rows to learn from. That of `start` is kept: its scales and codes
        are what the weights are made for."""
        rows = Rows(self.plan.uri, self.spec.features, self.plan.snapshots[0].schema, self._filter)
        with step("fit the encoder", self.plan.rows) as progress:
            fitted, count = fit_encoder(rows, self.plan.learned, self.readers, progress.advance)
        return (self.start.bundle.encoder if self.start else fitted), count

    @property
    def _filter(self) -> str | None:
        return training_filter(self.spec)

    def _intake(self, encoder: Encoder, row_filter: str | None, labels: bool) -> Intake:
        roles = self.spec.roles
        carried = (*roles.entity, *filter(None, [roles.label if labels else None]))
        roles = roles if labels else dataclasses.replace(roles, label=None, kind=None)
        return Intake(self.plan.uri, encoder, roles, row_filter, carried)

    def data(
        self, encoder: Encoder, labels: Literal["none", "some", "all"]
    ) -> dict[str, ray.data.Dataset]:
        # Labels reach the training only of a detector that says it learns from them.
        intake = self._intake(encoder, self._filter, labels != "none")
        return {
            name: dataset.dataset(intake, splits, labels == "all", self.readers)
            for name, splits in (
                ("train", self.plan.learned),
                ("validation", self.plan.held_back),
            )
        }

    def _choice(self, encoder: Encoder, rows: int) -> Choice:
        data = self.data(encoder, "some" if self.spec.roles.label else "none")
        return choose_detector(self.spec, encoder, data, rows, training_options(self.spec))

    def _cached(self, data: dict[str, ray.data.Dataset], encoder: Encoder, rows: int) -> int:
        """Keep the encoded rows in Ray's object store where they fit; the held-back rows' count."""
        size = rows * encoder.bytes_per_row
        room = ray.cluster_resources().get("object_store_memory", 0.0) * _CACHE_SHARE
        # The held-back rows are needed three times whatever their size.
        with step("encode the rows", 2) as progress:
            data["validation"] = data["validation"].materialize()
            progress.advance()
            if size <= room:
                data["train"] = data["train"].materialize()
            progress.advance()
        held: int = data["validation"].count()
        if held == 0:
            raise Refusal(
                f"none of the {listed(self.plan.days)} held-back rows passes the training filter "
                f"{self._filter!r}: choose more training days or a larger training.validation"
            )
        return held

    def _detector(
        self, encoder: Encoder, data: dict[str, ray.data.Dataset], rows: int
    ) -> tuple[Detector, dict[str, Any]]:
        name, options = self.detector.name, self.detector.options
        started = time.monotonic()
        detector = self._fitted(encoder, name, options, data["train"], rows)
        if detector.learns == "sample":
            seconds = time.monotonic() - started
            return detector, {"history": [], "best_epoch": None, "seconds": seconds}
        start = detector.state_dict() if detector.learns == "both" else None
        if self.start is not None:
            start = self.start.bundle.detector.state_dict()
        prepared = shown = None
        if CATALOG[name].labels == "some":
            shown = dataset.known_anomalies(encoder, data["train"], _SHOWN_ROWS)
        if CATALOG[name].labels == "all":
            positive = int(cast(float, data["train"].sum("label")) or 0)
            rows = data["train"].count()
            prepared = {"positive": positive, "rows": rows}
        with step("train", self.spec.training.epochs) as progress:
            trained = ddp.train(
                encoder,
                name,
                options,
                training_options(self.spec),
                data,
                rows,
                self.workers,
                self.storage,
                self._run_name(),
                lambda epoch: self._epoch_ended(progress, epoch),
                prepared,
                shown,
                start,
                self._rows_at_once(encoder, detector),
            )
        if trained.resumed_from:
            say(f"resumed an interrupted training after epoch {trained.resumed_from}")
        self.storage.delete_all(self._run_name())
        detector.load_state_dict(trained.state)
        facts = {
            "history": trained.history,
            "best_epoch": trained.best_epoch,
            "seconds": time.monotonic() - started,
        }
        return detector.eval(), facts

    def _epoch_ended(self, progress: Step, epoch: dict[str, float]) -> None:
        # One that is done again, after a node was lost, counts once.
        progress.advance(int(epoch["epoch"]) - progress.done, _epoch_line(epoch))
        self.metrics.record_epoch(epoch, self.spec.training.epochs)

    def _rows_at_once(self, encoder: Encoder, detector: Detector) -> int | None:
        """Rows of the largest step that a CPU worker's share of its node has memory for."""
        room = self.workers.memory
        if self.workers.gpus or not room:
            return None
        return of_training(encoder, detector, torch.device("cpu")).rows_in(room)

    def _run_name(self) -> str:
        """The same for the same spec and data, so that a job that died is resumed."""
        start = self.start.id if self.start else ""
        parts = [self.spec.training_digest, self.detector.text, start]
        parts += [s.digest for s in self.plan.snapshots]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def _fitted(
        self,
        encoder: Encoder,
        name: str,
        options: dict[str, Any],
        data: ray.data.Dataset,
        rows: int,
    ) -> Detector:
        """A detector, fitted to a sample if it learns from one."""
        torch.manual_seed(self.spec.training.seed)
        detector = CATALOG.build(name, encoder.layout, options)
        if detector.learns != "gradient":
            most = detector.config.sample_rows
            sample = dataset.sample(encoder, data, rows, most, self.spec.training.seed)
            detector.fit(sample._replace(label=None), self.spec.training.seed)
        return detector.eval()

    def _baseline(
        self,
        encoder: Encoder,
        name: str,
        data: dict[str, ray.data.Dataset],
        rows: int,
        held_rows: int,
    ) -> Detector:
        with step(f"fit the baseline {name}", 1) as progress:
            detector = self._fitted(encoder, name, {}, data["train"], rows)
            self._settle(encoder, detector, data, rows, held_rows)
            progress.advance()
        return detector

    def _settle(
        self,
        encoder: Encoder,
        detector: Detector,
        data: dict[str, ray.data.Dataset],
        rows: int,
        held_rows: int,
    ) -> None:
        """What a detector has to learn from held-back rows, after training.

        Where whole days are held back, learned rows are added: one Tuesday says nothing of how
        well a Sunday is known, and every row of a Wednesday was flagged for its weekday.
        """
        seed, most = self.spec.training.seed, _CALIBRATION_ROWS
        batches = [dataset.sample(encoder, data["validation"], held_rows, most, seed)]
        if self.plan.holds_back_days:
            batches.append(dataset.sample(encoder, data["train"], rows, most, seed))
        # In chunks: the activations over 80,000 images at once would not fit.
        size = encoder.layout.chunk_rows
        chunks = [
            batch.take(slice(start, start + size))
            for batch in batches
            for start in range(0, len(batch.numeric), size)
        ]
        with torch.no_grad():
            detector.calibrate(chunks)

    def _calibrations(
        self, encoder: Encoder, detectors: dict[str, Detector]
    ) -> dict[str, Calibration]:
        # A policy that weighs labels has to see the anomalies that one-class training leaves out.
        weighs_labels = self.spec.threshold.policy in ("f_beta", "cost")
        row_filter = self.spec.input.filter if weighs_labels else self._filter
        intake = self._intake(encoder, row_filter, labels=weighs_labels)
        held_back = self.plan.held_back
        with step("calibrate", sum(s.rows for _, s in held_back)) as progress:
            return calibrate(
                intake,
                detectors,
                held_back,
                self.plan.held_back_days,
                self.scorers,
                progress.advance,
            )

    def _bundle(
        self,
        encoder: Encoder,
        name: str,
        detector: Detector,
        calibration: Calibration,
        facts: dict[str, Any],
    ) -> Bundle:
        baseline = bool(name)
        history = [] if baseline else facts["history"]
        best = None if baseline else facts["best_epoch"]
        metrics: dict[str, float] = {"seconds": 0.0 if baseline else facts["seconds"]}
        if history and best:
            metrics["validation_loss"] = history[best - 1]["validation_loss"]
            rates = sorted(e["rows_per_second"] for e in history)
            metrics["rows_per_second"] = rates[len(rates) // 2]
        return Bundle(
            encoder=encoder.cpu(),
            detector=detector.cpu(),
            detector_name=name or self.detector.name,
            calibration=calibration,
            metadata={
                "watch": self.spec.name,
                "spec": self.spec.digest,
                "training": {
                    "uri": self.spec.training_uri,
                    "days": list(self.plan.days),
                    "snapshots": [s.digest for s in self.plan.snapshots],
                    "filter": self._filter,
                    "rows": self.plan.rows,
                    "workers": self.workers.workers,
                },
                "history": history,
                "best_epoch": best,
                "chosen": self.choice.to_document() if self.choice and not baseline else None,
                "from": self.start.metadata if self.start and not baseline else None,
                "metrics": metrics,
                "memory": dataclasses.asdict(
                    of_scoring(encoder.cpu(), detector.cpu(), torch.device("cpu"))
                ),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def _epoch_line(epoch: dict[str, float]) -> str:
    return (
        f"loss {epoch['train_loss']:.4g}, held back {epoch['validation_loss']:.4g}, "
        f"{epoch['rows_per_second']:,.0f} rows/s"
    )
