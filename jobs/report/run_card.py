"""Assemble the run card of a day from the books, the bundle and the committed flags."""

import json
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.lake.output.schemas import FLAGS, RUNS
from cluster.lake.output.shard import day_folder, read_shard
from cluster.lake.storage.store import Store
from cluster.splits.stream import Pool
from jobs.report.document import REPORTS, Card, DayEntry, QualityFacts
from jobs.report.pages import render_card, render_index
from jobs.report.profile import Profile
from jobs.report.top_flags import Flagged, iso
from jobs.scoring.books import Balance
from jobs.scoring.gates import Gate
from jobs.scoring.run import Run
from models.bundle import Bundle
from models.scores.drift import measure_drift
from models.scores.quality import evaluate_table

_BINS = 60

Times = tuple[datetime, datetime, float]  # started, finished, seconds of scoring


def write(
    run: Run,
    balance: Balance,
    verdicts: list[Gate],
    version: int | None,
    times: Times,
    profile: Profile | None = None,
    pool: Pool | None = None,
) -> str:
    """Write page and JSON under `reports/day=D/`, and the index of all days; returns the page's
    URI. Written after the commit: a run card that fails to appear loses nothing."""
    card = assemble(run, balance, verdicts, version, times, profile, pool)
    reports = run.output.child(REPORTS)
    folder = day_folder(run.day)
    reports.put(f"{folder}/run_card.html", render_card(card).encode())
    reports.put(f"{folder}/run_card.json", _json(card))
    entry: DayEntry = {
        "watch": run.spec.name,
        "day": run.day,
        "status": card["run"]["status"],
        "rows": balance.rows,
        "flagged": balance.flagged,
        "quarantined": balance.quarantined,
        "link": f"{folder}/run_card.html",
        "run_id": run.run_id,
        "when": card["run"]["finished"],
        "scored": balance.scored,
        "seconds": card["run"]["seconds"],
        "threshold": run.threshold.value,
        "score_drift": measure_drift(run.bundle.calibration.scores, balance.sketch),
    }
    reports.put(f"{folder}/entry.json", _json(entry))
    write_index(reports)
    return f"{reports.uri}/{folder}/run_card.html"


def write_index(reports: Store) -> str:
    """The page of all days, from the entry that each run left."""
    entries = [
        json.loads(reports.read(found.key))
        for found in reports.list("")
        if found.key.endswith("/entry.json")
    ]
    reports.put("index.html", render_index(entries).encode())
    return f"{reports.uri}/index.html"


def assemble(
    run: Run,
    balance: Balance,
    verdicts: list[Gate],
    version: int | None,
    times: Times,
    profile: Profile | None = None,
    pool: Pool | None = None,
) -> Card:
    """All facts of the card as plain JSON."""
    started, finished, seconds = times
    flagged = _flagged(run, balance)
    return {
        "run": {
            "watch": run.spec.name,
            "day": run.day,
            "run_id": run.run_id,
            "status": "refused" if version is None else "committed",
            "started": iso(started),
            "finished": iso(finished),
            "seconds": seconds,
            "rows_per_second": balance.rows / max(seconds, 1e-9),
            "command": " ".join(["python", "-m", "jobs", *sys.argv[1:]]),
            "table_version": version,
        },
        "books": {
            "rows": balance.rows,
            "filtered": balance.filtered,
            "scored": balance.scored,
            "quarantined": balance.quarantined,
            "flagged": balance.flagged,
            "files": len(run.snapshot.files),
            "rejected_files": len(run.snapshot.rejected),
            "splits": len(balance.splits),
            "bytes": run.snapshot.bytes,
            "retried": balance.retried,
            "resent": balance.resent,
            "duplicate_ids": balance.repeats_across_splits,
        },
        "gates": [{"name": g.name, "passed": g.passed, "message": g.message} for g in verdicts],
        "threshold": {
            "value": run.threshold.value,
            "policy": run.threshold.policy,
            "id": run.threshold.id,
        },
        "bundle": _bundle(run.bundle),
        "score_histogram": _histogram(run.bundle, balance),
        "flags_over_time": _over_time(balance),
        "entities": flagged.entities(),
        "top_flags": flagged.top(),
        "quarantine": balance.rules(),  # type: ignore[typeddict-item]
        "training": _training(run.bundle),
        "quality": _quality(run, balance),
        "warnings": [*balance.warnings(), *(pool.warnings() if pool else [])],
        "actors": {"planned": pool.planned, "most": pool.most} if pool else None,
        "profile": profile.to_document() if profile else None,
    }


def _flagged(run: Run, balance: Balance) -> Flagged:
    """The flags of the run, read back from its shards and verified."""
    store, flagged = run.output.child(FLAGS), Flagged(run.spec.roles)
    for one in balance.shards("shards"):
        flagged.add(read_shard(store, one))
    return flagged


def _bundle(bundle: Bundle) -> Any:
    return {
        "id": bundle.id,
        "digest": bundle.digest,
        "detector": bundle.detector_name,
        "options": bundle.options,
        "trained_days": bundle.metadata["training"]["days"],
        "created": bundle.metadata["created"],
        "versions": bundle.metadata["versions"],
        "features": len(bundle.encoder.layout.features),
        "parameters": sum(p.numel() for p in bundle.detector.parameters()),
        "started_from": (bundle.metadata.get("from") or {}).get("bundle"),
        "chosen": bundle.metadata.get("chosen"),
    }


def _training(bundle: Bundle) -> Any:
    history = bundle.metadata["history"]
    if not history:
        return None
    return {
        "epochs": history,
        "best_epoch": bundle.metadata["best_epoch"],
        "seconds": bundle.metadata["metrics"]["seconds"],
        "rows": bundle.metadata["training"]["rows"],
    }


def _histogram(bundle: Bundle, balance: Balance) -> Any:
    """Scores of the day and of the calibration in common bins."""
    if balance.sketch.count == 0:
        return None
    calibration = bundle.calibration.scores
    low = min(balance.sketch.minimum, calibration.minimum)
    high = max(balance.sketch.maximum, calibration.maximum)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    counts = balance.sketch.count_between(edges)
    before = calibration.histogram(edges)[1]
    return {
        "edges": edges.tolist(),
        "counts": [int(c) for c in counts],
        "calibration_counts": [int(c) for c in before],
    }


def _over_time(balance: Balance) -> Any:
    """Rows and flags by the hour of the rows' own time, at most `_BINS` bins."""
    if not balance.hours:
        return None
    first, last = min(balance.hours), max(balance.hours)
    width = max(1, -(-(last - first + 1) // _BINS))
    count = (last - first) // width + 1
    rows, flags = [0] * count, [0] * count
    for hour, (n, m) in balance.hours.items():
        rows[(hour - first) // width] += n
        flags[(hour - first) // width] += m
    bins = [iso(datetime.fromtimestamp((first + i * width) * 3600, UTC)) for i in range(count)]
    return {"bins": bins, "flags": flags, "rows": rows}


def _quality(run: Run, balance: Balance) -> QualityFacts | None:
    """Against labels, where the day has them: exact, over every scored row."""
    if not run.spec.roles.label:
        return None
    store = run.output.child(f"{RUNS}/{run.run_id}/labelled")
    parts = [read_shard(store, s) for s in balance.shards("labelled")]
    if not parts:
        return None
    quality = evaluate_table(pa.concat_tables(parts), "score", run.threshold.value)
    if quality is None:
        return None
    return {"detector": quality.to_document(), "baselines": {}}


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()
