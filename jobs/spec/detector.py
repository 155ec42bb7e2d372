"""The checks of a spec that need the catalogue of detectors, and so torch."""

from typing import Any

from jobs.spec.errors import one_of
from jobs.spec.source import Key, SpecRefused, join_key
from jobs.spec.spec import Spec
from models.detectors.catalog import CATALOG
from models.detectors.detector import Detector
from models.detectors.options import check_options
from models.refusal import Refusal
from models.selection.auto import AUTO, AutoConfig


def check_detector(spec: Spec) -> None:
    """Check the detector, its options and the baselines against the catalogue.

    Raises SpecRefused with every problem and its line. `load` does not call it, because the
    catalogue imports torch.
    """
    if found := _find_problems(spec):
        raise SpecRefused([f"{spec.where(*k)}: {join_key(k)}: {m}" for k, m in found])


def _find_problems(spec: Spec) -> list[tuple[Key, str]]:
    found: list[tuple[Key, str]] = []
    kinds: dict[str, type[Detector]] = {}
    for index, name in enumerate(spec.training.baselines):
        found += _find(name, ("training", "baselines", index), kinds)
    name = spec.detector.name
    if name == AUTO:
        return [*_check_options(spec), *found, *_check_earlier_labels(spec, name)]
    found = [*_find(name, ("detector", "name"), kinds), *found]
    if name not in kinds:
        return found
    labelled = spec.roles.label is not None
    for named, kind in kinds.items():
        if kind.labels != "none" and not labelled:
            key: Key = ("detector", "name") if named == name else ("training", "baselines")
            text = f"{named} learns from labels; expected a column with the role label, found none"
            found.append((key, text))
        if kind.labels == "none":
            found += _check_earlier_labels(spec, named)
    if spec.training.trim and kinds[name].labels != "none":
        # The rows of highest loss are the labelled anomalies that it should learn from.
        text = f"expected 0 for {name}, which learns from labels, found {spec.training.trim:g}"
        found.append((("training", "trim"), text))
    return [*_check_options(spec), *found]


def _find(name: str, key: Key, kinds: dict[str, type[Detector]]) -> list[tuple[Key, str]]:
    """Add the class of a detector to `kinds`, or say why it cannot be used."""
    names = CATALOG.list_names()
    try:
        kinds[name] = CATALOG.find(name)
    except Refusal as refusal:
        if ":" in name or name in names:
            return [(key, str(refusal))]
        text = one_of([*names, AUTO] if key[0] == "detector" else names, name)
        return [(key, f"{text}; no installed package has it" if "." in name else text)]
    return []


def _check_earlier_labels(spec: Spec, named: str) -> list[tuple[Key, str]]:
    """A detector that learns without labels must not see a history of labels either, unless the
    spec allows it: to a bank, the cards that were reported stolen are facts of the past."""
    if spec.training.earlier_labels:
        return []
    learner = "auto may choose a detector that learns" if named == AUTO else f"{named} learns"
    text = f"{learner} without labels and must not see earlier labels"
    if named == spec.detector.name:
        advice = "choose a detector that learns from labels"
    else:
        advice = "take it out of training.baselines ([] for none)"
    return [
        (
            ("history", index, "labels"),
            f"{text}; {advice}, remove the entry, or write training.earlier_labels: true",
        )
        for index, entry in enumerate(spec.history)
        if entry.labels
    ]


def _check_options(spec: Spec) -> list[tuple[Key, str]]:
    """Problems of each option; if there are none, of all options together."""
    name, options = spec.detector.name, spec.detector.options
    found: list[tuple[Key, str]] = []
    for option, value in options.items():
        try:
            _configure(name, {option: value})
        except Refusal as refusal:
            found.append((("detector", option), str(refusal)))
    if found:
        return found
    try:
        _configure(name, options)
    except Refusal as refusal:
        return [(("detector",), str(refusal))]
    return []


def _configure(name: str, options: dict[str, Any]) -> None:
    if name == AUTO:
        check_options(AutoConfig, name, options)
    else:
        CATALOG.configure(name, options)
