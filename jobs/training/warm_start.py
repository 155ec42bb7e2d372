"""Where a training starts from: the weights and the encoder of a bundle in the registry."""

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
    """A bundle whose encoder is kept and whose weights are learned on from."""

    id: str
    bundle: Bundle

    @property
    def metadata(self) -> dict[str, Any]:
        """What the new bundle says of this one: its id, its history, and what it came from."""
        facts = self.bundle.metadata
        return {
            "bundle": self.id,
            "days": facts["training"]["days"],
            "history": facts["history"],
            "best_epoch": facts["best_epoch"],
            "from": facts.get("from"),
        }


def load_start(spec: Spec, registry: Registry, given: str) -> Start:
    """The bundle with that id, or the champion.

    Raises Refusal unless it has the spec's columns, detector and options: then its weights mean
    the same as those that are to be learned. With `auto`, the
    bundle's detector stays.
    """
    if given == CHAMPION:
        bundle = load_champion(spec, registry).bundle
    else:
        bundle = open_bundle(registry.read_bundle(given), given)
    name = bundle.id
    if bundle.encoder.columns != spec.features:
        raise Refusal(
            f"expected a bundle of the spec's columns to start from; {_differs(spec, bundle)} "
            f"of bundle {name}: train without --from, or put the column back"
        )
    if spec.detector.name != AUTO:
        _same_detector(spec, name, bundle)
    if not list(bundle.detector.parameters()):
        raise Refusal(
            f"expected a detector that learns by gradient to start from; {bundle.detector_name} "
            "is fitted to a sample anew: train without --from"
        )
    return Start(name, bundle)


def _same_detector(spec: Spec, name: str, bundle: Bundle) -> None:
    options = asdict(CATALOG.configure(spec.detector.name, spec.detector.options))
    wanted, found = (spec.detector.name, options), (bundle.detector_name, bundle.options)
    if wanted != found:
        raise Refusal(
            f"expected a bundle of the spec's detector to start from, {_detector(*wanted)}; found "
            f"{_detector(*found)} in bundle {name}: train without --from, or give its options"
        )


def _differs(spec: Spec, bundle: Bundle) -> str:
    ours = {column.name: column for column in spec.features}
    theirs = {column.name: column for column in bundle.encoder.columns}
    differing = [n for n in ours | theirs if ours.get(n) != theirs.get(n)]
    if not differing:
        return "their order is not that"
    return f"found '{differing[0]}' not to be as that"


def _detector(name: str, options: dict[str, Any]) -> str:
    return f"{name} ({', '.join(f'{key}: {value}' for key, value in options.items())})"
