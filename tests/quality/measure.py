"""One detector on one trial, in this process: encode, learn, score, measure."""

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from sklearn.metrics import precision_recall_curve

from models.batch import Batch, join
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.detectors.options import check_options
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.layout import Layout
from models.refusal import Refusal
from models.scores import quality as metrics
from models.selection.auto import AUTO, HELD_BACK_ROWS, AutoConfig, Candidate, choose
from models.training.loop import learn, score_rows
from models.training.options import TrainingOptions
from models.training.progress import EpochResult
from tests.quality.protocol import Trial

# Share of the training rows that is held back for the validation loss and the calibration.
_HELD_BACK = 0.1
# Rows that are encoded at a time, as the jobs do.
_ROWS = 16_384


@dataclass(frozen=True)
class Result:
    """What one detector made of one trial: a line of the results."""

    set: str
    detector: str
    seed: int
    features: int = 0
    trained: int = 0  # rows
    scored: int = 0  # rows
    set_aside: int = 0  # test rows that the encoder cannot take, and so are not judged
    auroc: float | None = None
    auroc_interval: tuple[float, float] | None = None  # 95%, over the test rows
    auprc: float | None = None
    auprc_interval: tuple[float, float] | None = None
    f1: float | None = None  # with the share flagged that the protocol sets, else the best of all
    train_seconds: float = 0.0  # fitting the encoder, learning, calibration
    rows_per_second: float = 0.0  # encoded and scored, on this process's threads
    options: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None  # why there is no figure

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    trial: Trial,
    name: str,
    detector: str,
    seed: int,
    options: dict[str, Any] | None = None,
    training: TrainingOptions | None = None,
    budget: float = math.inf,
) -> Result:
    """Learn and score. A detector that refuses the set, or has more epochs to go when its training
    has taken `budget` seconds of the processor, gives a result that says so."""
    given = options or {}
    chosen = training or TrainingOptions()
    try:
        return _measured(trial, name, detector, seed, given, chosen, budget)
    except Refusal as refusal:
        return Result(name, detector, seed, options=given, refused=str(refusal))


def _measured(
    trial: Trial,
    name: str,
    detector_name: str,
    seed: int,
    options: dict[str, Any],
    training: TrainingOptions,
    budget: float,
) -> Result:
    started, used = time.perf_counter(), time.process_time()
    fit = EncoderFit(trial.columns, trial.train.schema)
    for batch in trial.train.to_batches(_ROWS):
        fit.update(batch)
    encoder = fit.finish()
    rows, _ = encoded(encoder, trial.train)
    training = replace(training, seed=seed)
    candidate = Candidate(detector_name, options)
    if detector_name == AUTO:
        candidate = _chosen(encoder.layout, rows, options, training)
    torch.manual_seed(seed)
    detector = CATALOG.build(candidate.name, encoder.layout, candidate.options)
    learned, held_back = _parts(detector, rows, seed)

    def within(result: EpochResult) -> None:
        if result.epoch < training.epochs and time.process_time() - used > budget:
            raise Refusal(
                f"expected to train within {budget:,.0f} s of the processor, found more to do"
            )

    learn(detector, learned, held_back, training, within)
    train_seconds = time.perf_counter() - started

    started = time.perf_counter()
    test, good = encoded(encoder, trial.test)
    scores = score_rows(detector, test).numpy()
    seconds = time.perf_counter() - started

    labels = trial.labels[good]
    threshold = np.inf if trial.flagged is None else float(np.quantile(scores, 1 - trial.flagged))
    quality = metrics.evaluate(scores, labels, threshold)
    return Result(
        set=name,
        detector=detector_name,
        seed=seed,
        features=len(encoder.layout.features),
        trained=len(rows.numeric),
        scored=len(scores),
        set_aside=int((~good).sum()),
        auroc=quality.auroc.value,
        auroc_interval=_interval(quality.auroc),
        auprc=quality.auprc.value,
        auprc_interval=_interval(quality.auprc),
        f1=_best_f1(labels, scores) if trial.flagged is None else quality.f1.value,
        train_seconds=round(train_seconds, 3),
        rows_per_second=round(len(scores) / seconds, 1),
        options=options if candidate.name == detector_name else {"chosen": candidate.text},
    )


def encoded(encoder: Encoder, rows: pa.Table) -> tuple[Batch, np.ndarray[Any, Any]]:
    """The rows that the encoder can take, and which of all they are: bool [rows]."""
    parts, good = [], np.ones(len(rows), bool)
    start = 0
    for batch in rows.combine_chunks().to_batches(_ROWS):
        extracted = encoder.extract(batch)
        bad = sorted({problem.row for problem in extracted.problems})
        kept = np.ones(batch.num_rows, bool)
        kept[bad] = False
        good[start : start + batch.num_rows] = kept
        start += batch.num_rows
        whole = encoder(extracted)
        parts.append(whole.take(torch.from_numpy(kept)) if bad else whole)
    if not parts:
        raise Refusal("expected rows to encode, found none")
    return join(parts), good


def _chosen(
    layout: Layout, rows: Batch, options: dict[str, Any], training: TrainingOptions
) -> Candidate:
    """What `detector: auto` chooses where a filter leaves rows labelled normal only."""
    config: AutoConfig = check_options(AutoConfig, AUTO, options)
    learned, held_back = _split(rows._replace(label=torch.zeros(len(rows.numeric))), training.seed)
    learned, held_back = learned.take(slice(config.rows)), held_back.take(slice(HELD_BACK_ROWS))
    return choose(layout, learned, held_back, config, training).winner


def _parts(detector: Detector, rows: Batch, seed: int) -> tuple[Batch, Batch]:
    """(learned, held back). What is fitted on a sample and calibrates nothing learns from all."""
    calibrates = type(detector).calibrate is not Detector.calibrate
    if detector.learns == "sample" and not calibrates:
        return rows, rows
    return _split(rows, seed)


def _split(rows: Batch, seed: int) -> tuple[Batch, Batch]:
    """(learned, held back), at random."""
    order = torch.randperm(len(rows.numeric), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(_HELD_BACK * len(order)))
    return rows.take(order[held:]), rows.take(order[:held])


def _best_f1(labels: npt.NDArray[np.int8], scores: npt.NDArray[np.float32]) -> float | None:
    """F1 at the threshold where it is highest, which nobody knows beforehand."""
    if len(np.unique(labels)) < 2:
        return None
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)))


def _interval(measure: metrics.Measure) -> tuple[float, float] | None:
    if measure.low is None or measure.high is None:
        return None
    return measure.low, measure.high
