"""Assemble the run card of a day from the books, the bundle and the committed flags."""

import sys
from datetime import UTC, datetime
from typing import cast

import numpy as np
import pyarrow as pa

from cluster.lake.output.schemas import FLAGS, RUNS
from cluster.lake.output.shard import day_folder, read_shard
from cluster.scoring.receipt import LABELLED, QuarantineRule
from jobs.report.document import (
    REPORTS,
    BundleFacts,
    Card,
    DayEntry,
    FlagsOverTime,
    Histogram,
    ProfileFacts,
    QualityDocument,
    QualityFacts,
    QuarantineEntry,
    Training,
    parse_day_entry,
)
from jobs.report.publishing import PAGE, publish
from jobs.report.top_flags import FlagSummary
from jobs.scoring.books import RunBooks
from jobs.scoring.result import Ending
from jobs.scoring.run import Run
from jobs.terminal.exact_values import format_time
from models.bundle import Backend, Bundle
from models.refusal import Refusal
from models.scores.drift import measure_drift
from models.scores.quality import evaluate_table

_BINS = 60


def write(run: Run, books: RunBooks, ending: Ending) -> str:
    """Write the page and its JSON under `reports/day=D/`, and the index of all days; returns the
    URI of the page. It comes after the commit, so a run card that fails loses nothing."""
    card = assemble(run, books, ending)
    counts = books.counts
    entry: DayEntry = {
        "watch": run.spec.name,
        "day": run.day,
        "status": card["run"]["status"],
        "rows": counts.rows,
        "flagged": counts.flagged,
        "quarantined": counts.quarantined,
        "link": f"{day_folder(run.day)}/{PAGE}",
        "run_id": run.run_id,
        "when": card["run"]["finished"],
        "scored": counts.scored,
        "seconds": card["run"]["seconds"],
        "threshold": run.threshold.value,
        "score_drift": measure_drift(run.bundle.calibration.scores, books.scores),
    }
    return publish(run.output.child(REPORTS), card, entry)


def assemble(run: Run, books: RunBooks, ending: Ending) -> Card:
    """The document of the card."""
    flagged = _read_flags(run, books)
    return {
        "run": {
            "watch": run.spec.name,
            "day": run.day,
            "run_id": run.run_id,
            "status": "refused" if ending.version is None else "committed",
            "started": format_time(ending.started.replace(microsecond=0)),
            "finished": format_time(ending.finished.replace(microsecond=0)),
            "seconds": ending.seconds,
            "rows_per_second": books.counts.rows / max(ending.seconds, 1e-9),
            "command": " ".join(["python", "-m", "jobs", *sys.argv[1:]]),
            "table_version": ending.version,
            "input_version": run.snapshot.version,
        },
        "books": {
            **books.counts.to_document(),
            "files": len(run.snapshot.files),
            "rejected_files": len(run.snapshot.rejected),
            "bytes": run.snapshot.bytes,
            "duplicate_ids": books.repeats_across_splits,
        },
        "gates": [{"name": g.name, "passed": g.passed, "message": g.message} for g in ending.gates],
        "threshold": {
            "value": run.threshold.value,
            "policy": run.threshold.policy,
            "id": run.threshold.id,
        },
        "bundle": _describe_bundle(run.bundle, run.backend),
        "score_histogram": _count_scores(run.bundle, books),
        "flags_over_time": _count_over_time(books),
        "entities": flagged.list_entities(),
        "top_flags": flagged.list_top(),
        "flags": flagged.list_lines(),
        "quarantine": [_describe_rule(rule) for rule in books.quarantine()],
        "training": _describe_training(run.bundle),
        "quality": _measure_quality(run, books),
        "warnings": [*books.warnings(), *ending.warnings],
        "actors": {"planned": ending.actors, "most": ending.most_actors},
        "profile": cast(ProfileFacts, ending.profile),
    }


def _read_flags(run: Run, books: RunBooks) -> FlagSummary:
    """The flags of the run, read back from its shards and verified."""
    store, flagged = run.output.child(FLAGS), FlagSummary(run.spec.roles)
    for one in books.shards(FLAGS):
        flagged.add(read_shard(store, one))
    return flagged


def _describe_rule(rule: QuarantineRule) -> QuarantineEntry:
    return {
        "column": rule.column,
        "file": rule.file,
        "rule": rule.rule,
        "rows": rule.rows,
        "examples": list(rule.examples),
    }


def _describe_bundle(bundle: Bundle, backend: Backend) -> BundleFacts:
    return {
        "id": bundle.id,
        "digest": bundle.digest,
        "detector": bundle.detector_name,
        "options": bundle.options,
        "trained_days": bundle.metadata["training"]["days"],
        "created": bundle.metadata["created"],
        "versions": bundle.metadata["versions"],
        "features": len(bundle.extractor.layout.features),
        "parameters": bundle.parameters,
        "computed_by": backend,
        "started_from": (bundle.metadata.get("from") or {}).get("bundle"),
        "chosen": bundle.metadata.get("chosen"),
    }


def _describe_training(bundle: Bundle) -> Training | None:
    history = bundle.metadata["history"]
    if not history:
        return None
    return {
        "epochs": history,
        "best_epoch": bundle.metadata["best_epoch"],
        "seconds": bundle.metadata["metrics"]["seconds"],
        "rows": bundle.metadata["training"]["rows"],
    }


def _count_scores(bundle: Bundle, books: RunBooks) -> Histogram | None:
    """Scores of the day and of the calibration in common bins."""
    if books.scores.count == 0:
        return None
    calibration = bundle.calibration.scores
    low = min(books.scores.minimum, calibration.minimum)
    high = max(books.scores.maximum, calibration.maximum)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    counts = books.scores.count_between(edges)
    before = calibration.histogram(edges)[1]
    return {
        "edges": edges.tolist(),
        "counts": [int(c) for c in counts],
        "calibration_counts": [int(c) for c in before],
    }


def _count_over_time(books: RunBooks) -> FlagsOverTime | None:
    """Rows and flags by the hour of their own time, in `_BINS` bins at most."""
    if not books.hours:
        return None
    first, last = min(books.hours), max(books.hours)
    width = max(1, -(-(last - first + 1) // _BINS))
    count = (last - first) // width + 1
    rows, flags = [0] * count, [0] * count
    for hour, (n, m) in books.hours.items():
        rows[(hour - first) // width] += n
        flags[(hour - first) // width] += m
    bins = [
        format_time(datetime.fromtimestamp((first + i * width) * 3600, UTC)) for i in range(count)
    ]
    return {"bins": bins, "flags": flags, "rows": rows}


def _measure_quality(run: Run, books: RunBooks) -> QualityFacts | None:
    """Quality on the labels of the day, over every scored row; None for a day without labels."""
    if not run.spec.roles.label:
        return None
    store = run.output.child(f"{RUNS}/{run.run_id}/{LABELLED}")
    parts = [read_shard(store, s) for s in books.shards(LABELLED)]
    if not parts:
        return None
    quality = evaluate_table(pa.concat_tables(parts), "score", run.threshold.value)
    if quality is None:
        return None
    return {"detector": cast(QualityDocument, quality.to_document()), "baselines": {}}


def has_card(run: Run) -> bool:
    """Whether the last run card of the day is there, and of this run."""
    reports, key = run.output.child(REPORTS), f"{day_folder(run.day)}/entry.json"
    try:
        entry = parse_day_entry(reports.read(key), f"{reports.uri}/{key}")
    except Refusal:
        return False
    return entry["run_id"] == run.run_id and reports.exists(entry["link"])
