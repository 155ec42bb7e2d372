"""Choose a threshold from the stored score sketches of a bundle: no GPU, no data, no detector."""

from pathlib import Path
from typing import Any

from cluster.lake.output.schemas import REGISTRY
from cluster.lake.registry.registry import Promotion, Registry
from cluster.lake.storage.opening import open_store
from jobs.champion import load_champion, load_signer
from jobs.spec.spec import Spec
from models.scores.threshold import Calibration, Policy, Threshold


def choose_threshold(
    registry: Registry, bundle: str, calibration: Calibration, policy: Policy
) -> Threshold:
    """Choose by the policy, and keep the threshold as an artefact of its own."""
    threshold = Threshold.choose(policy, calibration, bundle)
    registry.add_threshold(threshold.id, threshold.to_json())
    return threshold


def change_threshold(
    spec: Spec, promote: bool = True, *, sign_with: Path | None = None
) -> dict[str, Any]:
    """A new threshold for the champion by the policy of the spec as it stands now."""
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
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
