"""Choose a threshold from the score sketches in a bundle, without GPU, data or detector."""

from pathlib import Path
from typing import Any

from cluster.lake.registry.registry import Promotion, Registry
from jobs.champion import load_champion, load_signer, open_registry
from jobs.spec.spec import Spec
from models.scores.threshold import Calibration, Policy, Threshold


def choose_threshold(
    registry: Registry, bundle: str, calibration: Calibration, policy: Policy
) -> Threshold:
    """Choose a threshold by the policy and store it in the registry."""
    threshold = Threshold.choose(policy, calibration, bundle)
    registry.add_threshold(threshold.to_json())
    return threshold


def change_threshold(
    spec: Spec, promote: bool = True, *, sign_with: Path | None = None
) -> dict[str, Any]:
    """Choose a threshold for the champion by the spec's current policy, and put it in force.

    Returns the verb's JSON document. With `promote` False the threshold is only stored.
    """
    registry = open_registry(spec)
    found = load_champion(spec, registry)
    champion, before, calibration = found.entry, found.threshold, found.bundle.calibration
    signer = load_signer(spec, sign_with) if promote else None
    after = choose_threshold(registry, champion.bundle, calibration, spec.policy)
    if promote and after.id != champion.threshold:
        promotion = Promotion(
            bundle=champion.bundle,
            threshold=after.id,
            note="threshold changed",
            baselines=champion.baselines,
            digests=champion.digests,
        )
        registry.promote(promotion, signer)
    return {
        "bundle": champion.bundle,
        "before": {"id": before.id, "value": before.value, "policy": before.policy},
        "after": {"id": after.id, "value": after.value, "policy": after.policy},
        "calibration_rows_above": calibration.scores.count_above(after.value),
        "calibration_rows": calibration.scores.count,
        "promoted": promote and after.id != champion.threshold,
    }
