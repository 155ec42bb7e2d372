"""Rank the detectors of the catalogue on a watch.

Each detector is trained on a sample of the training days and measured on labelled days that it has
not seen. Runs in one process, without Ray, and writes nothing but derived rows.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.table import Table

from cluster.lake.days import DayRange
from cluster.lake.input.partitions import list_days
from cluster.lake.input.reading import read_rows
from cluster.lake.input.splits import SPLIT_BYTES, Split, cut_splits
from cluster.lake.storage.opening import open_store
from cluster.splits.admission import CHUNKS, Intake
from jobs import check, input_rows
from jobs.spec.spec import Spec
from jobs.terminal.console import step
from jobs.terminal.printable import escape_message
from jobs.training.options import build_filter, build_options
from jobs.training.plan import choose_days, format_days
from models.batch import Batch, join
from models.decoding.labels import decode_labels
from models.detectors.catalog import CATALOG
from models.encoding.encoder import Encoder
from models.encoding.fit import EncoderFit
from models.refusal import Refusal
from models.scores import quality as metrics
from models.scores.quality import Measure
from models.training.loop import learn, score_rows

# Pieces of a sample, spread over the days: fewer would cover a few hours of one day, more would
# open a file for a handful of rows.
_PIECES = 64
# Share of the sample that is held back for the validation loss and the calibration.
_HELD_BACK = 0.1


@dataclass(frozen=True)
class Standing:
    """A line of the leaderboard."""

    detector: str
    chosen: bool  # whether it is the spec's detector, with its options; others have defaults
    auroc: Measure | None = None
    auprc: Measure | None = None
    train_seconds: float | None = None
    rows_per_second: float | None = None  # of scoring, in this process
    refused: str | None = None  # why it was not measured


def leaderboard(
    spec: Spec,
    days: DayRange | None = None,
    *,
    rows: int = 50_000,
    detectors: Sequence[str] = (),
) -> dict[str, Any]:
    """Train and measure `detectors` (none: ours and all installed); the best AUROC comes first.

    About `rows` rows are learned from, and about as many measured. `days` are the labelled days
    (None: all that the spec does not train on). Returns the verb's JSON document. Raises `Refusal`
    without labels.
    """
    if not spec.roles.label:
        raise Refusal(
            f"watch {spec.name} has no column with the role label, which ranking needs: add one "
            "(`label: {role: label}`, 0 for normal and 1 for an anomaly) with labels for some days"
        )
    for name in detectors:
        CATALOG.find(name)
    trained = choose_days(spec, None)
    judged = _choose_labelled_days(spec, days, trained)
    encoder, learned = _read_training_sample(spec, trained, rows)
    test, labels = _read_labelled_sample(spec, judged, rows, encoder)
    names = list(detectors) or CATALOG.list_names()
    standings = []
    with step("train and measure", len(names)) as progress:
        for name in names:
            standings.append(_measure(spec, name, encoder, learned, test, labels))
            progress.advance()
    standings.sort(key=lambda s: -1.0 if s.auroc is None else -(s.auroc.value or 0.0))
    standings.sort(key=lambda s: s.auroc is None)
    return {
        "watch": spec.name,
        "trained_days": list(trained),
        "trained_rows": len(learned.numeric),
        "days": list(judged),
        "rows": len(labels),
        "anomalies": int(labels.sum()),
        "standings": [asdict(standing) for standing in standings],
    }


def _choose_labelled_days(
    spec: Spec, days: DayRange | None, trained: Sequence[str]
) -> tuple[str, ...]:
    """The days to measure on, none of which is trained on."""
    there = list_days(spec.source())
    seen = set() if spec.trains_apart else set(trained)
    unseen = tuple(day for day in there if day not in seen)
    chosen = unseen if days is None else days.require(there, spec.input.uri)
    if seen & set(chosen):
        raise Refusal(
            f"{format_days([day for day in chosen if day in seen])} cannot be measured, because "
            f"the detectors train on {format_days(trained)}: choose other --days, or fewer "
            "training.days"
        )
    if not chosen:
        raise Refusal(
            f"no day is left to measure: {spec.input.uri} has {format_days(there)}, and the "
            f"detectors train on {format_days(trained)}; choose fewer training.days, or other "
            "--days"
        )
    return chosen


def _read_training_sample(spec: Spec, days: Sequence[str], rows: int) -> tuple[Encoder, Batch]:
    """An encoder fitted on a sample of the training rows, and the encoded sample."""
    row_filter = build_filter(spec)
    uri, splits, schema = _sample_splits(spec, spec.training_uri, days, rows, training=True)
    fit = EncoderFit(spec.features, schema)
    required = tuple(source.column.name for source in fit.sources)
    store = open_store(uri)
    for split in splits:
        rows_at_once = CHUNKS * fit.chunk_rows
        for batch, _ in read_rows(store, split, required, rows_at_once, row_filter, schema):
            fit.update(batch)
    encoder = fit.finish()
    label = spec.roles.label if spec.roles.label in schema.names else None
    parts = list(_encode(spec, uri, row_filter, label, encoder, splits, schema))
    if not parts:
        raise Refusal(f"no row of {format_days(days)} passes the filter {row_filter!r}")
    return encoder, join(parts)


def _read_labelled_sample(
    spec: Spec, days: Sequence[str], rows: int, encoder: Encoder
) -> tuple[Batch, NDArray[np.int8]]:
    """A sample of the labelled rows, encoded, and their labels, [rows] of 0 and 1."""
    uri, splits, schema = _sample_splits(spec, spec.input.uri, days, rows, training=False)
    label, row_filter = spec.roles.label, spec.input_filter
    parts = list(_encode(spec, uri, row_filter, label, encoder, splits, schema))
    whole = join(parts) if parts else None
    known = None if whole is None or whole.label is None else whole.label.isfinite()
    if whole is None or known is None or not known.any():
        raise Refusal(f"no row of {format_days(days)} has a label: choose labelled days")
    whole = whole.take(known)
    assert whole.label is not None
    return whole._replace(label=None), whole.label.numpy().astype(np.int8)


def _sample_splits(
    spec: Spec, uri: str, days: Sequence[str], rows: int, *, training: bool
) -> tuple[str, list[Split], pa.Schema]:
    """The URI, small splits with about `rows` rows from all of the days, and the schema."""
    taken = input_rows.take_snapshots(spec, uri, days)
    schema = check.agree_on_schema(spec, taken, training=training)
    size = max(1, rows // _PIECES)
    pieces = [s for day in taken for s in cut_splits(day, size, SPLIT_BYTES)]
    chosen, held = [], 0
    for place in np.random.default_rng(spec.training.seed).permutation(len(pieces)):
        if held >= rows:
            break
        chosen.append(int(place))
        held += pieces[place].rows
    return taken[0].uri, [pieces[place] for place in sorted(chosen)], schema


def _encode(
    spec: Spec,
    uri: str,
    row_filter: str | None,
    label: str | None,
    encoder: Encoder,
    splits: Sequence[Split],
    types: pa.Schema,
) -> Iterator[Batch]:
    """Encode the good rows of the splits; labels, if asked for, are NaN where they are null."""
    roles = replace(spec.roles, label=label, kind=None)
    intake = Intake(uri, encoder, roles, row_filter, (label,) if label else (), types=types)
    for split in splits:
        for admitted in intake.admit(split):
            encoded = encoder(admitted.extracted)
            if label:
                labels = decode_labels(admitted.rows.column(label), roles.normal).values
                encoded = encoded._replace(label=torch.from_numpy(labels))
            yield encoded


def _measure(
    spec: Spec,
    name: str,
    encoder: Encoder,
    rows: Batch,
    test: Batch,
    labels: NDArray[np.int8],
) -> Standing:
    """Train a detector on `rows` and measure its scores of `test`."""
    chosen = name == spec.detector.name
    try:
        torch.manual_seed(spec.training.seed)
        detector = CATALOG.build(name, encoder.layout, spec.detector.options if chosen else {})
        learned, held_back = _split_sample(rows, name, spec.training.seed)
        started = time.perf_counter()
        options = build_options(spec)
        if detector.labels != "none":  # the rows of highest loss are the labelled anomalies
            options = replace(options, trim=0.0)
        elif not spec.training.earlier_labels and any(entry.labels for entry in spec.history):
            raise Refusal(
                "learns without labels, but a history shows it earlier ones: set "
                "training.earlier_labels to allow that"
            )
        learn(detector, learned, held_back, options)
        trained = time.perf_counter()
        scores = score_rows(detector, test).numpy()
        ended = time.perf_counter()
    except Refusal as refusal:
        return Standing(name, chosen, refused=str(refusal))
    quality = metrics.evaluate(scores, labels, np.inf)
    return Standing(
        name,
        chosen,
        quality.auroc,
        quality.auprc,
        round(trained - started, 3),
        round(len(scores) / (ended - trained), 1),
    )


def _split_sample(rows: Batch, name: str, seed: int) -> tuple[Batch, Batch]:
    """Split into (learned, held back); only a detector that learns from labels keeps them."""
    wanted = CATALOG.find(name).labels
    if wanted == "none":
        rows = rows._replace(label=None)
    else:
        if rows.label is not None and wanted == "all":
            rows = rows.take(rows.label.isfinite())
        if rows.label is None or not (rows.label > 0.5).any():
            raise Refusal(
                "learns from labelled anomalies, but the training rows have none "
                "(training.filter may remove them)"
            )
    order = torch.randperm(len(rows.numeric), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(_HELD_BACK * len(order)))
    return rows.take(order[held:]), rows.take(order[:held])


def render_table(document: dict[str, Any]) -> Table:
    """The document of `leaderboard` as a table for the terminal."""
    table = Table(
        title=f"{document['watch']}: trained on {document['trained_rows']:,} rows of "
        f"{format_days(document['trained_days'])}, measured on {document['rows']:,} labelled rows "
        f"({document['anomalies']:,} anomalies) of {format_days(document['days'])}",
        title_justify="left",
        caption_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("detector", overflow="fold")
    for name in ("AUROC", "AUPRC", "train s", "rows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    refused = []
    for standing in document["standings"]:
        name = standing["detector"] + (" (the spec's)" if standing["chosen"] else "")
        if standing["refused"]:
            refused.append(f"{name}: {standing['refused']}")
            continue
        table.add_row(
            name,
            _format_measure(standing["auroc"]),
            _format_measure(standing["auprc"]),
            f"{standing['train_seconds']:.1f}",
            f"{standing['rows_per_second']:,.0f}",
        )
    table.caption = escape_message("\n".join(["not measured:", *refused])) if refused else None
    return table


def _format_measure(measure: dict[str, Any]) -> str:
    if measure["value"] is None:
        return f"– ({measure['reason']})"
    if measure["low"] is None:
        return f"{measure['value']:.4f}"
    return f"{measure['value']:.4f} [{measure['low']:.2f}–{measure['high']:.2f}]"
