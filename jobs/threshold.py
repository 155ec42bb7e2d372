"""Choose a threshold from the stored score sketches of a bundle: no GPU, no data, no detector."""

from typing import Any

from cluster.lake.registry import Registry
from cluster.lake.store import Store
from cluster.scoring import REGISTRY
from jobs.spec import Spec
from models.bundle import open_bundle
from models.threshold import Calibration, Policy, Threshold


def new_threshold(
    registry: Registry, bundle: str, calibration: Calibration, policy: Policy
) -> Threshold:
    """Choose by the policy, and keep the threshold as an artefact of its own."""
    threshold = Threshold.chosen(policy, calibration, bundle)
    registry.add_threshold(threshold.id, threshold.to_json())
    return threshold


def change(spec: Spec, promote: bool = True) -> dict[str, Any]:
    """A new threshold for the champion by the policy of the spec as it stands now."""
    registry = Registry(Store.open(spec.output.uri).child(REGISTRY))
    champion = registry.champion_or_refuse()
    calibration = open_bundle(registry.files(champion.bundle), champion.bundle).calibration
    before = Threshold.from_json(registry.threshold(champion.threshold))
    after = new_threshold(registry, champion.bundle, calibration, spec.policy)
    if promote and after.id != champion.threshold:
        registry.promote(champion.bundle, after.id, "threshold changed", champion.baselines)
    return {
        "bundle": champion.bundle,
        "before": {"id": before.id, "value": before.value, "policy": before.policy},
        "after": {"id": after.id, "value": after.value, "policy": after.policy},
        "calibration_rows_above": calibration.scores.above(after.value),
        "calibration_rows": calibration.scores.count,
        "promoted": promote and after.id != champion.threshold,
    }
