"""The steps of one training: encoder, epochs, calibration, bundles."""

import dataclasses
import hashlib
import time
from datetime import UTC, datetime
from typing import Literal

import torch

from cluster.lake.storage.opening import open_store
from cluster.splits.admission import Intake
from cluster.splits.engine import Engine
from cluster.training.calibration import calibrate
from cluster.training.checkpoint import Checkpoints
from cluster.training.dataset import TrainingData, make_rows
from cluster.training.encoder_fit import RowSelection, fit_encoder
from cluster.training.epochs import find_trainer
from cluster.training.rank import ClassBalance, WorkerInput
from jobs.monitoring.live import LiveMetrics
from jobs.spec.spec import Spec
from jobs.terminal.console import Step, say, step
from jobs.training.auto import choose_detector
from jobs.training.options import build_filter, build_options
from jobs.training.plan import TrainingPlan, format_days
from jobs.training.warm_start import Start
from models.bundle import Bundle, make_bundle
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch
from models.exporting import Compiled, compile_detector
from models.refusal import Refusal
from models.scores.threshold import Calibration, choose
from models.selection.auto import AUTO, Candidate, Choice
from models.training.memory import measure_scoring, measure_training
from models.training.progress import EpochResult

TRAININGS = "_trainings"
# Held-back rows that a detector is calibrated on, such as its residual scales; more rows change the
# fourth digit.
_CALIBRATION_ROWS = 200_000
# Held-back rows whose scores are compared with those of the compiled detector.
_COMPARED_ROWS = 20_000
# Labelled anomalies for a detector that learns from a few; each worker holds them all.
_SHOWN_ROWS = 10_000


@dataclasses.dataclass(frozen=True)
class _Trained:
    """A detector with its best weights. One that is fitted to a sample has no epochs."""

    detector: Detector
    history: tuple[EpochResult, ...] = ()
    best_epoch: int | None = None
    seconds: float = 0.0


class TrainingRun:
    """The steps of one training, on an open engine."""

    def __init__(
        self,
        engine: Engine,
        spec: Spec,
        plan: TrainingPlan,
        workers: int,
        start: Start | None = None,
        metrics: LiveMetrics | None = None,
    ) -> None:
        self.engine, self.spec, self.plan, self.start = engine, spec, plan, start
        self.metrics = metrics or LiveMetrics(spec.name, "train")
        self.detector = Candidate(spec.detector.name, spec.detector.options)
        if start:
            self.detector = Candidate(start.bundle.detector_name, start.bundle.options)
        self.choice: Choice | None = None
        self.rows = 0  # that the encoder was fitted on
        self.readers, self.scorers = engine.plan_readers(), engine.plan_actors()
        self.workers = engine.plan_workers(workers, spec.training.min_workers)
        self.storage = open_store(spec.output.uri).child(TRAININGS)

    def run(self) -> dict[str, Bundle]:
        """The bundle under "" and those of the baselines under their names."""
        encoder, rows = self.fit_encoder()
        self.rows = rows
        if self.detector.name == AUTO:
            self.choice = self._choose(encoder, rows)
            self.detector = self.choice.winner
        names = [self.detector.name, *self.spec.training.baselines]
        data = self._keep_rows(self.read_rows(encoder, rows, CATALOG.find(names[0]).labels))
        trained = {"": self._train(data)}
        self._calibrate_detector(trained[""].detector, data)
        for name in self.spec.training.baselines:
            if name != names[0]:
                trained[name] = self._train_baseline(name, data)
        calibrations = self._calibrations(
            encoder, {name: one.detector for name, one in trained.items()}
        )
        compared = data.draw_held_back(_COMPARED_ROWS, self.spec.training.seed)
        return {
            name: self._bundle(encoder, name, one, calibrations[name], compared)
            for name, one in trained.items()
        }

    def fit_encoder(self) -> tuple[Encoder, int]:
        """The encoder and the number of training rows. With a `start` its encoder is kept, since
        the weights belong to its scales and codes."""
        rows = RowSelection(self.plan.uri, self.spec.features, self.plan.schema, self._filter)
        with step("fit the encoder", self.plan.rows) as progress:
            fitted, count = fit_encoder(
                self.engine, rows, self.plan.learned, self.readers, progress.advance
            )
        return (self.start.bundle.encoder if self.start else fitted), count

    @property
    def _filter(self) -> str | None:
        return build_filter(self.spec)

    def _intake(self, encoder: Encoder, row_filter: str | None, labels: bool) -> Intake:
        roles = self.spec.roles
        carried = (*roles.entity, *filter(None, [roles.label if labels else None]))
        roles = roles if labels else dataclasses.replace(roles, label=None, kind=None)
        return Intake(self.plan.uri, encoder, roles, row_filter, carried, types=self.plan.schema)

    def read_rows(
        self, encoder: Encoder, rows: int, labels: Literal["none", "some", "all"]
    ) -> TrainingData:
        """The rows of the plan, which are not read yet, with labels if the detector uses them."""
        intake = self._intake(encoder, self._filter, labels != "none")
        train, held_back = (
            make_rows(self.engine, intake, splits, labels == "all", self.readers)
            for splits in (self.plan.learned, self.plan.held_back)
        )
        return TrainingData(encoder, train, held_back, rows)

    def _choose(self, encoder: Encoder, rows: int) -> Choice:
        data = self.read_rows(encoder, rows, "some" if self.spec.roles.label else "none")
        return choose_detector(self.spec, data, build_options(self.spec))

    def _keep_rows(self, data: TrainingData) -> TrainingData:
        """Read the held-back rows, and the training rows if they fit, in memory."""
        size = data.rows * data.encoder.bytes_per_row
        train = data.train
        # The held-back rows are read three times, whatever their size.
        with step("encode the rows", 2) as progress:
            held_back = data.held_back.keep()
            progress.advance()
            if size <= self.engine.cache_bytes():
                train = train.keep()
            progress.advance()
        if held_back.count() == 0:
            passes = f" or does not pass the filter {self._filter!r}" if self._filter else ""
            raise Refusal(
                f"none of the held-back rows of {format_days(self.plan.days)} can be used: each "
                f"breaks a rule of a column{passes}. Choose more training days or a larger "
                "training.validation"
            )
        return dataclasses.replace(data, train=train, held_back=held_back)

    def _train(self, data: TrainingData) -> _Trained:
        started = time.monotonic()
        detector = self._build(self.detector, data)
        if detector.learns == "sample":
            return _Trained(detector, seconds=time.monotonic() - started)
        given = self._worker_input(detector, data)
        checkpoints = Checkpoints(self.storage, self._name())
        with step("train", self.spec.training.epochs) as progress:
            train = find_trainer(self.engine)
            done = train(
                given,
                data,
                self.workers,
                checkpoints,
                lambda epoch: self._tell(progress, epoch),
            )
        if done.resumed_from:
            say(f"resumed an interrupted training after epoch {done.resumed_from}")
        self.storage.delete_all(checkpoints.name)
        detector.load_state_dict(done.best)
        return _Trained(detector.eval(), done.history, done.best_epoch, time.monotonic() - started)

    def _worker_input(self, detector: Detector, data: TrainingData) -> WorkerInput:
        """The input of the DDP workers, for a detector that is built and fitted."""
        labels, rows = CATALOG.find(self.detector.name).labels, data.rows
        start = detector.state_dict() if detector.learns == "both" else None
        if self.start is not None:
            start = self.start.bundle.detector.state_dict()
        balance = None
        if labels == "all":
            positive = int(data.train.sum("label"))
            rows = data.train.count()
            balance = ClassBalance(positive, rows)
        return WorkerInput(
            encoder=data.encoder,
            detector=self.detector.name,
            options=self.detector.options,
            training=build_options(self.spec),
            rows=rows,
            balance=balance,
            shown=data.known_anomalies(_SHOWN_ROWS) if labels == "some" else None,
            start=start,
            most_rows=self._rows_at_once(data.encoder, detector),
        )

    def _tell(self, progress: Step, epoch: EpochResult) -> None:
        # An epoch that is repeated after a lost node counts once.
        progress.advance(epoch.epoch - progress.done, _epoch_line(epoch))
        self.metrics.record_epoch(dataclasses.asdict(epoch), self.spec.training.epochs)

    def _rows_at_once(self, encoder: Encoder, detector: Detector) -> int | None:
        """Rows of the largest step that fits a CPU worker's share of its node's memory."""
        room = self.workers.memory
        if self.workers.gpus or not room:
            return None
        return measure_training(encoder, detector, torch.device("cpu")).rows_in(room)

    def _name(self) -> str:
        """The name of the training: the same for the same spec and data, so that it resumes."""
        start = self.start.id if self.start else ""
        parts = [self.spec.training_digest, self.detector.text, start]
        parts += [s.digest for s in self.plan.snapshots]
        return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]

    def _build(self, candidate: Candidate, data: TrainingData) -> Detector:
        """Build a detector, and fit it to a sample if it learns from one."""
        seed = self.spec.training.seed
        torch.manual_seed(seed)
        detector = CATALOG.build(candidate.name, data.encoder.layout, candidate.options)
        if detector.learns != "gradient":
            sample = data.sample_train(detector.config.sample_rows, seed)
            detector.fit(sample._replace(label=None), seed)
        return detector.eval()

    def _train_baseline(self, name: str, data: TrainingData) -> _Trained:
        with step(f"fit the baseline {name}", 1) as progress:
            detector = self._build(Candidate(name), data)
            self._calibrate_detector(detector, data)
            progress.advance()
        return _Trained(detector)

    def _calibrate_detector(self, detector: Detector, data: TrainingData) -> None:
        """Calibrate a trained detector on held-back rows.

        If whole days are held back, training rows are added, so that all weekdays are there
        (docs/decisions/held-back-rows.md).
        """
        seed = self.spec.training.seed
        batches = [data.sample_held_back(_CALIBRATION_ROWS, seed)]
        if self.plan.holds_back_days:
            batches.append(data.sample_train(_CALIBRATION_ROWS, seed))
        # In chunks, as the activations of 80,000 images do not fit the memory.
        size = data.encoder.layout.chunk_rows
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
        # A policy that weighs labels needs the anomalies that the training filter leaves out.
        weighs_labels = self.spec.threshold.policy in ("f_beta", "cost")
        row_filter = self.spec.input_filter if weighs_labels else self._filter
        intake = self._intake(encoder, row_filter, labels=weighs_labels)
        held_back = self.plan.held_back
        with step("calibrate", sum(s.rows for _, s in held_back)) as progress:
            return calibrate(
                self.engine,
                intake,
                encoder,
                detectors,
                held_back,
                self.plan.held_back_days,
                self.scorers,
                progress.advance,
            )

    def _compile(
        self, name: str, encoder: Encoder, trained: _Trained, threshold: float, rows: RawBatch
    ) -> Compiled:
        """The detector as ONNX, if it gives the scores and the flags that torch gives."""
        # The exporter may crash on code that no test of ours has seen.
        if package := CATALOG.find_package(name):
            return Compiled(None, f"its detector is of the package {package}", None)
        compiled = compile_detector(encoder, trained.detector, rows, threshold)
        if compiled.reason != trained.detector.eager:  # that is so for all data
            say(f"{name} is run by torch, not by onnxruntime: {compiled.reason}")
        return compiled

    def _bundle(
        self,
        encoder: Encoder,
        name: str,
        trained: _Trained,
        calibration: Calibration,
        rows: RawBatch,
    ) -> Bundle:
        history, best = trained.history, trained.best_epoch
        detector = trained.detector.cpu()
        metrics: dict[str, float] = {"seconds": trained.seconds}
        if history and best:
            metrics["validation_loss"] = history[best - 1].validation_loss
            rates = sorted(epoch.rows_per_second for epoch in history)
            metrics["rows_per_second"] = rates[len(rates) // 2]
        detector_name, threshold = name or self.detector.name, choose(self.spec.policy, calibration)
        compiled = self._compile(detector_name, encoder.cpu(), trained, threshold, rows)
        return make_bundle(
            encoder=encoder,
            detector=detector,
            name=detector_name,
            calibration=calibration,
            graphs=compiled.graphs,
            metadata={
                "watch": self.spec.name,
                "spec": self.spec.digest,
                "training": {
                    "uri": self.spec.training_uri,
                    "days": list(self.plan.days),
                    "snapshots": [s.digest for s in self.plan.snapshots],
                    "versions": [s.version for s in self.plan.snapshots],
                    "filter": self._filter,
                    "rows": self.rows,  # that passed the filters, without those held back
                    "workers": self.workers.workers,
                },
                "history": [dataclasses.asdict(epoch) for epoch in history],
                "best_epoch": best,
                "chosen": self.choice.to_document() if self.choice and not name else None,
                "from": self.start.metadata if self.start and not name else None,
                "metrics": metrics,
                "compiled": {"reason": compiled.reason, "difference": compiled.difference},
                "memory": dataclasses.asdict(
                    measure_scoring(encoder, detector, torch.device("cpu"))
                ),
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )


def _epoch_line(epoch: EpochResult) -> str:
    return (
        f"loss {epoch.train_loss:.4g}, held back {epoch.validation_loss:.4g}, "
        f"{epoch.rows_per_second:,.0f} rows/s"
    )
