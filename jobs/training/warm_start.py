"""Warm start: a training that starts from the encoder and weights of a bundle."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from cluster.lake.registry.registry import Registry
from jobs.champion import load_champion
from jobs.spec.spec import Spec
from models.bundle import Bundle, open_bundle
from models.detectors.catalog import CATALOG
from models.refusal import Refusal
from models.selection.auto import AUTO

CHAMPION = "champion"


@dataclass(frozen=True)
class Start:
    """A bundle whose encoder is kept and whose weights a training starts from."""

    id: str
    bundle: Bundle

    @property
    def metadata(self) -> dict[str, Any]:
        """The origin of the new bundle, for its metadata."""
        facts = self.bundle.metadata
        return {
            "bundle": self.id,
            "days": facts["training"]["days"],
            "history": facts["history"],
            "best_epoch": facts["best_epoch"],
            "from": facts.get("from"),
        }


def load_start(spec: Spec, registry: Registry, given: str) -> Start:
    """Load the bundle whose id begins with `given`, or the champion.

    Raises Refusal unless it has the spec's columns, detector and options, without which its weights
    mean something else. With `auto`, any detector is accepted and stays.
    """
    if given == CHAMPION:
        bundle = load_champion(spec, registry).bundle
    else:
        found = registry.find_bundle(given)
        bundle = open_bundle(registry.read_bundle(found), found)
    name = bundle.id
    if bundle.extractor.columns != spec.features:
        raise Refusal(
            f"{_find_difference(spec, bundle)} bundle {name}, so the training cannot start from "
            "it: train without --from, or restore the column"
        )
    if spec.detector.name != AUTO:
        _require_same_detector(spec, name, bundle)
    if not bundle.parameters:
        raise Refusal(
            f"expected a detector that learns by gradient to start from; {bundle.detector_name} "
            "is fitted to a new sample each time: train without --from"
        )
    return Start(name, bundle)


def _require_same_detector(spec: Spec, name: str, bundle: Bundle) -> None:
    configured = asdict(CATALOG.configure(spec.detector.name, spec.detector.options))
    options = json.loads(json.dumps(configured))  # lists for tuples, as a bundle has them
    wanted, found = (spec.detector.name, options), (bundle.detector_name, bundle.options)
    if wanted != found:
        raise Refusal(
            f"expected a bundle of the spec's detector to start from, {_format(*wanted)}; found "
            f"{_format(*found)} in bundle {name}: train without --from, or put its options in the "
            "spec"
        )


def _find_difference(spec: Spec, bundle: Bundle) -> str:
    ours = {column.name: column for column in spec.features}
    theirs = {column.name: column for column in bundle.extractor.columns}
    differing = [n for n in ours | theirs if ours.get(n) != theirs.get(n)]
    if not differing:
        return "the order of the columns differs from"
    return f"column '{differing[0]}' differs from"


def _format(name: str, options: dict[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key}: {value}' for key, value in options.items())})"
