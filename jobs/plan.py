"""Show what a run would do before it does it: snapshot, splits, predicted cost."""

from dataclasses import asdict
from typing import Any

from rich.table import Table

from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.input.splits import plan_tasks
from cluster.lake.output.schemas import REGISTRY, RUNS
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.runtime.resources import THREADS, Demand
from jobs import input_rows
from jobs.spec.spec import Spec


def plan(spec: Spec, day: str) -> dict[str, Any]:
    """The snapshot and the splits of a day, with predicted rows, bytes, memory and time."""
    derived = input_rows.preview_derivation(spec, spec.input.uri, day)
    if derived and derived.done:
        (taken,) = input_rows.take_snapshots(spec, spec.input.uri, [day])
    else:
        taken = take_snapshot(spec.input.uri, spec.input.partition, day)
    splits = [split for task in plan_tasks(taken) for split in task.splits]
    largest = max((s.bytes for s in splits), default=0)
    rate, source = _rate(spec)
    return {
        "watch": spec.name,
        "day": day,
        "uri": taken.uri,
        "snapshot": taken.digest,
        "files": len(taken.files),
        "rejected": [{"key": r.key, "rule": r.rule, "message": r.message} for r in taken.rejected],
        "rows": taken.rows,
        "bytes": taken.bytes,
        "splits": [s.to_document() for s in splits],
        "derived": asdict(derived) if derived else None,
        "predicted": {
            "memory_bytes": Demand(largest).memory(THREADS),
            "rows_per_second": rate,
            "seconds": None if rate is None else round(taken.rows / rate, 1),
            "from": source,
        },
    }


def _rate(spec: Spec) -> tuple[float | None, str]:
    """Rows a second of the last run of this watch: a measurement, or no prediction at all."""
    runs = open_store(spec.output.uri).child(RUNS)
    receipts = [found for found in runs.list("") if found.key.endswith("/receipt.json")]
    import json

    for found in sorted(receipts, key=lambda f: f.modified, reverse=True):
        document = json.loads(runs.read(found.key))
        if document.get("rows_per_second"):
            return float(document["rows_per_second"]), f"run {document['run_id']}"
    champion = Registry(open_store(spec.output.uri).child(REGISTRY)).read_champion()
    if champion is None:
        return None, "no bundle yet: run `train` first"
    return None, "no run yet: the first one measures the rate"


def render_table(document: dict[str, Any]) -> Table:
    """The plan for a terminal."""
    predicted = document["predicted"]
    seconds = predicted["seconds"]
    table = Table(
        title=f"{document['watch']}, {document['day']}: {document['rows']:,} rows in "
        f"{document['files']} files, {document['bytes'] / 1024**2:,.1f} MiB uncompressed, "
        f"{len(document['splits'])} splits",
        caption=f"memory of an actor: about {predicted['memory_bytes'] / 1024**2:,.0f} MiB · time: "
        + (f"about {seconds:,.1f} s" if seconds is not None else "unknown")
        + f" ({predicted['from']})"
        + _derived(document["derived"]),
        title_justify="left",
        caption_justify="left",
    )
    for name in ("split", "file", "row groups", "rows", "MiB"):
        table.add_column(name, justify="right" if name in ("rows", "MiB") else "left")
    for split in document["splits"][:50]:
        groups = split["row_groups"]
        shown = f"{groups[0]}..{groups[-1]}" if len(groups) > 1 else str(groups[0])
        table.add_row(
            split["id"],
            split["key"],
            shown,
            f"{split['rows']:,}",
            f"{split['bytes'] / 1024**2:,.1f}",
        )
    if len(document["splits"]) > 50:
        table.add_row("…", f"and {len(document['splits']) - 50:,} more", "", "", "")
    return table


def _derived(preview: dict[str, Any] | None) -> str:
    """What is derived first, as one more line."""
    if preview is None:
        return ""
    past = preview["looks_back_on"]
    back = f"looking back on {len(past)} days from {past[0]}" if past else "looking back on no day"
    cost = "done before" if preview["done"] else f"{preview['rows_to_read']:,} rows to read"
    return f"\nderived first: {len(preview['columns'])} columns, {back}; {cost}"
