"""Manage the registry of a watch: list its bundles, change the champion, remove old files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.lake.derived.derive import remove_before
from cluster.lake.input.partitions import list_days
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.output.schemas import (
    FLAGS,
    QUARANTINE,
    QUARANTINE_SCHEMA,
    SCORES,
    flag_schema,
    score_schema,
)
from cluster.lake.output.table import LakeTable
from cluster.lake.registry.registry import Promotion
from jobs.champion import load_signer, open_registry, trusted_signers
from jobs.input_rows import DERIVED
from jobs.output import open_own_output
from jobs.spec.spec import Spec
from jobs.threshold import choose_threshold
from models.bundle import open_bundle
from models.refusal import Refusal


def list_bundles(spec: Spec) -> dict[str, Any]:
    """The bundles, newest first, and the champions in order, as the verb's JSON document."""
    registry = open_registry(spec)
    champion = registry.read_champion()
    found = []
    for bundle_id in registry.list_bundles():
        bundle = open_bundle(registry.read_bundle(bundle_id), bundle_id)
        facts = bundle.metadata
        found.append(
            {
                "id": bundle_id,
                "detector": bundle.detector_name,
                "created": facts["created"],
                "days": facts["training"]["days"],
                "rows": facts["training"]["rows"],
                "validation_loss": facts["metrics"].get("validation_loss"),
                "champion": champion is not None and champion.bundle == bundle_id,
            }
        )
    found.sort(key=lambda entry: str(entry["created"]), reverse=True)
    history = [
        {"bundle": e.bundle, "threshold": e.threshold, "note": e.note, "created": e.created}
        for e in registry.list_entries()
    ]
    return {"watch": spec.name, "bundles": found, "champions": history}


def render_table(document: dict[str, Any]) -> Table:
    """The bundles as a table for the terminal."""
    table = Table(title=f"bundles of {document['watch']}", title_justify="left")
    for name in ("", "bundle", "detector", "created", "learned from", "rows", "loss"):
        right = name in ("rows", "loss")
        table.add_column(name, justify="right" if right else "left", no_wrap=name == "bundle")
    for entry in document["bundles"]:
        loss, days = entry["validation_loss"], entry["days"]
        table.add_row(
            "champion" if entry["champion"] else "",
            entry["id"],
            entry["detector"],
            entry["created"][:16].replace("T", " "),
            days[0] if len(days) == 1 else f"{len(days)} days to {days[-1]}",
            f"{entry['rows']:,}",
            "" if loss is None else f"{loss:.4g}",
        )
    return table


def promote(spec: Spec, bundle_id: str, *, sign_with: Path | None = None) -> str:
    """Make a bundle the champion, with a threshold by the spec's policy; returns the message."""
    registry, signer = open_registry(spec), load_signer(spec, sign_with)
    bundle = open_bundle(registry.read_bundle(bundle_id), bundle_id)
    threshold = choose_threshold(registry, bundle_id, bundle.calibration, spec.policy)
    before = registry.read_champion()
    earlier = (e.baselines for e in reversed(registry.list_entries()) if e.bundle == bundle_id)
    baselines = next(earlier, {})
    promotion = Promotion(
        bundle=bundle_id,
        threshold=threshold.id,
        note="promoted by hand",
        baselines=baselines,
        digests={bundle_id: bundle.digest},
    )
    registry.promote(promotion, signer)
    return f"champion: {bundle_id}, threshold {threshold.value:.6g}" + (
        f" (before: {before.bundle})" if before else ""
    )


def rollback(spec: Spec, *, sign_with: Path | None = None) -> str:
    """Make the previous champion the champion again, as a new, newly signed entry."""
    signer = load_signer(spec, sign_with)
    entry = open_registry(spec).rollback(signer=signer, trust=trusted_signers(spec))
    return f"champion: {entry.bundle}, threshold {entry.threshold} (rolled back)"


def vacuum(spec: Spec, hours: int, dry_run: bool) -> list[str]:
    """Remove files older than `hours` that no commit names, and derived rows of that age.

    Returns the keys; with `dry_run` nothing is removed. Derived rows are derived again on demand.
    """
    output = open_own_output(spec)
    newest = list_days(spec.source())[-1:]
    if not newest:
        raise Refusal(f"no data in {spec.input.uri}: vacuum takes the tables' columns from it")
    schema = take_snapshot(spec.source(), newest[0]).schema
    tables = {
        FLAGS: flag_schema(schema, spec.roles),
        SCORES: score_schema(schema, spec.roles),
        QUARANTINE: QUARANTINE_SCHEMA,
    }
    removed = [
        f"{name}/{key}"
        for name, columns in tables.items()
        for key in LakeTable(output.child(name), columns, name).vacuum(hours, dry_run)
    ]
    oldest = datetime.now(UTC) - timedelta(hours=hours)
    keys = remove_before(output.child(DERIVED), oldest, dry_run)
    return removed + [f"{DERIVED}/{key}" for key in keys]
