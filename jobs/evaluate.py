"""Evaluate the champion and its baselines on labelled days."""

from typing import Any

import pyarrow as pa
from rich.table import Table

from cluster.lake.days import DayRange
from cluster.lake.input.partitions import list_days
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, cut_splits
from cluster.scoring import labelled
from cluster.splits.admission import Intake
from cluster.splits.engine import EngineName
from cluster.splits.opening import open_engine
from jobs import check, input_rows
from jobs.champion import load_champion, open_registry
from jobs.spec.spec import Spec
from jobs.terminal.console import say, step
from jobs.training.plan import format_days
from models.bundle import Bundle, open_bundle
from models.refusal import Refusal
from models.scores.quality import evaluate_table
from models.scores.threshold import choose


def evaluate(
    spec: Spec,
    days: DayRange | None = None,
    *,
    address: str | None = None,
    engine: EngineName | None = None,
) -> dict[str, Any]:
    """Measure the champion and its baselines on the labelled rows of `days` (None: all).

    The champion is measured at its threshold; each baseline at the threshold that the spec's policy
    gives on the baseline's own calibration. Returns the verb's JSON document. Raises `Refusal`
    without labels.
    """
    if not spec.roles.label:
        raise Refusal(
            f"watch {spec.name} has no column with the role label, which evaluation needs: "
            "add one (`label: {role: label}`, 0 for normal and 1 for an anomaly)"
        )
    registry = open_registry(spec)
    champion = load_champion(spec, registry)
    bundle, entry = champion.bundle, champion.entry
    baselines = {
        name: open_bundle(registry.read_bundle(one), entry.digests.get(one, one))
        for name, one in entry.baselines.items()
    }
    thresholds = {bundle.detector_name: champion.threshold.value}
    thresholds |= {n: choose(spec.policy, b.calibration) for n, b in baselines.items()}
    chosen, table = _score(spec, days, bundle, baselines, address, engine)
    qualities: dict[str, Any] = {}
    for name, value in thresholds.items():
        quality = evaluate_table(table, name, value)
        if quality is None:
            raise Refusal(f"no row of {format_days(chosen)} has a label: choose labelled days")
        qualities[name] = quality.to_document()
    return {
        "watch": spec.name,
        "days": list(chosen),
        "bundle": bundle.id,
        "detector": bundle.detector_name,
        "rows": table.num_rows,
        "quality": qualities,
    }


def _score(
    spec: Spec,
    days: DayRange | None,
    bundle: Bundle,
    baselines: dict[str, Bundle],
    address: str | None,
    asked: EngineName | None,
) -> tuple[tuple[str, ...], pa.Table]:
    """The days, and their rows: a column of scores for each detector, with the labels."""
    uri = spec.input.uri
    there = list_days(spec.source())
    chosen = there if days is None else days.require(there, uri)
    if not chosen:
        raise Refusal(f"no data in {uri}: expected Parquet files, found none")
    splits = []
    snapshots = input_rows.take_snapshots(spec, uri, chosen)
    for taken in snapshots:
        splits += [(taken.day, s) for s in cut_splits(taken, SPLIT_ROWS, SPLIT_BYTES)]
    types = check.agree_on_schema(spec, snapshots, extractor=bundle.extractor)
    roles = spec.roles
    carried = tuple(filter(None, [roles.label, roles.kind]))
    # Champion and baselines share the encoder, so the rows are read once.
    intake = Intake(
        snapshots[0].uri, bundle.extractor, roles, spec.input_filter, carried, types=types
    )
    bundles = {bundle.detector_name: bundle, **baselines}
    with (
        open_engine(address, asked) as engine,
        step(f"score {format_days(chosen)}", sum(s.rows for _, s in splits)) as progress,
    ):
        say(engine.line)
        pool = engine.plan_actors()
        table = labelled.evaluate(engine, intake, bundles, splits, pool, progress.advance)
    return chosen, table


def render_table(document: dict[str, Any]) -> list[Table]:
    """The document of `evaluate` as tables: a column for each detector, then recall by kind."""
    quality = document["quality"]
    names = list(quality)
    first = quality[names[0]]
    measures = Table(
        title=f"{document['watch']}: {first['rows']:,} labelled rows, "
        f"{first['anomalies']:,} anomalies, {format_days(document['days'])}",
        title_justify="left",
    )
    measures.add_column("measure")
    for name in names:
        measures.add_column(name, justify="right", no_wrap=True)
    for label, key in (
        ("AUROC", "auroc"),
        ("AUPRC", "auprc"),
        ("precision", "precision"),
        ("recall", "recall"),
        ("F1", "f1"),
    ):
        measures.add_row(label, *(_format_measure(quality[n][key]) for n in names))
    for place, at in enumerate(first["at_k"]):
        for key in ("precision", "recall"):
            cells = (_format_measure(quality[n]["at_k"][place][key]) for n in names)
            measures.add_row(f"{key} at {at['k']:,}", *cells)
    measures.add_row("flagged", *(f"{quality[n]['flagged']:,}" for n in names))
    tables = [measures]
    if first["kinds"]:
        kinds = Table(title="recall (AUROC) by kind of anomaly", title_justify="left")
        kinds.add_column("kind")
        kinds.add_column("rows", justify="right")
        for name in names:
            kinds.add_column(name, justify="right", no_wrap=True)
        for place, kind in enumerate(first["kinds"]):
            cells = (_format_kind(quality[n]["kinds"][place]) for n in names)
            kinds.add_row(kind["kind"], f"{kind['rows']:,}", *cells)
        tables.append(kinds)
    return tables


def _format_kind(kind: dict[str, Any]) -> str:
    auroc = "" if kind["auroc"] is None else f" ({kind['auroc']:.3f})"
    return f"{kind['recall']:.3f}{auroc}"


def _format_measure(measure: dict[str, Any]) -> str:
    if measure["value"] is None:
        return f"– ({measure['reason']})"
    if measure["low"] is None:
        return f"{measure['value']:.4f}"
    # Without leading zeros, three columns fit into a terminal of 80.
    low, high = (f"{measure[end]:.2f}".removeprefix("0") for end in ("low", "high"))
    return f"{measure['value']:.4f} [{low}–{high}]"
