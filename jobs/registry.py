"""Manage the registry of a watch: list its bundles, change the champion."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from cluster.lake.registry.registry import Promotion
from jobs.champion import load_signer, open_registry, trusted_signers
from jobs.spec.spec import Spec
from jobs.terminal.printable import escape_message
from jobs.threshold import choose_threshold
from models.bundle import open_bundle, read_facts

_LAST = 10  # champions that are shown


def list_bundles(spec: Spec) -> dict[str, Any]:
    """The bundles, newest first, and the champions in order, as the verb's JSON document."""
    registry = open_registry(spec)
    champion = registry.read_champion()
    found = []
    for bundle_id in registry.list_bundles():
        bundle = read_facts(registry.read_bundle(bundle_id), bundle_id)
        facts = bundle.metadata
        found.append(
            {
                "id": bundle_id,
                "detector": bundle.detector_name,
                "package": str(bundle.package) if bundle.package else None,
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


def render_tables(document: dict[str, Any]) -> Iterator[Table]:
    """The bundles and the last champions for a terminal of 80 columns, with whole ids."""
    yield _render_bundles(document)
    if document["champions"]:
        yield _render_champions(document["champions"][-_LAST:])


def _render_bundles(document: dict[str, Any]) -> Table:
    table = _make_table(f"bundles of {document['watch']}, newest first; * is the champion")
    table.add_column("")
    table.add_column("bundle", no_wrap=True)
    table.add_column("detector", overflow="fold")
    for name in ("days", "up to"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("rows", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in document["bundles"]:
        loss, days = entry["validation_loss"], entry["days"]
        table.add_row(
            "*" if entry["champion"] else "",
            entry["id"],
            entry["detector"],
            str(len(days)),
            escape_message(days[-1]) if days else "",
            _shorten(entry["rows"]),
            "" if loss is None else f"{loss:.4g}",
        )
    return table


def _render_champions(entries: Sequence[dict[str, Any]]) -> Table:
    table = _make_table(f"the last {len(entries)} champions" if len(entries) > 1 else "champion")
    for name in ("since", "bundle", "threshold"):
        table.add_column(name, no_wrap=True)
    table.add_column("note", overflow="fold")
    for entry in reversed(entries):
        since = entry["created"][:16].replace("T", " ")
        table.add_row(since, entry["bundle"], entry["threshold"], escape_message(entry["note"]))
    return table


def _make_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))


def _shorten(rows: int) -> str:
    """At most five characters: 950, 37.2k, 1.2M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if rows >= size:
            return f"{rows / size:.3g}{letter}"
    return str(rows)


def promote(spec: Spec, bundle_id: str, *, sign_with: Path | None = None) -> dict[str, Any]:
    """Make the bundle whose id begins so the champion, with a threshold by the spec's policy.

    Returns the verb's JSON document.
    """
    registry, signer = open_registry(spec), load_signer(spec, sign_with)
    bundle_id = registry.find_bundle(bundle_id)
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
    return {
        "watch": spec.name,
        "bundle": bundle_id,
        "threshold": {"id": threshold.id, "value": threshold.value, "policy": threshold.policy},
        "before": before.bundle if before else None,
    }


def rollback(spec: Spec, *, sign_with: Path | None = None) -> dict[str, Any]:
    """Make the previous champion the champion again, as a new, newly signed entry.

    Returns the verb's JSON document.
    """
    signer = load_signer(spec, sign_with)
    entry = open_registry(spec).rollback(signer=signer, trust=trusted_signers(spec))
    return {"watch": spec.name, "bundle": entry.bundle, "threshold": entry.threshold}
