"""The part of a spec that needs the catalogue of detectors, and with it torch."""

from typing import Any

from jobs.spec.errors import one_of
from jobs.spec.source import Key, SpecRefused, dotted
from jobs.spec.spec import Spec
from models.detectors.catalog import CATALOG
from models.detectors.options import check_options
from models.refusal import Refusal
from models.selection.auto import AUTO, AutoConfig


def check_detector(spec: Spec) -> None:
    """Check the detector, its options and the baselines against the catalogue.

    It is apart from `load`, because the catalogue imports torch. Raises SpecRefused with every
    problem, each with its line.
    """
    if found := _problems(spec):
        raise SpecRefused([f"{spec.where(*k)}: {dotted(k)}: {m}" for k, m in found])


def _problems(spec: Spec) -> list[tuple[Key, str]]:
    found: list[tuple[Key, str]] = []
    for index, name in enumerate(spec.training.baselines):
        if name not in CATALOG:
            found.append((("training", "baselines", index), one_of(list(CATALOG), name)))
    name = spec.detector.name
    if name == AUTO:
        return [*_wrong_options(spec), *found, *_sees_labels(spec, name)]
    if name not in CATALOG:
        return [(("detector", "name"), one_of([*CATALOG, AUTO], name)), *found]
    labelled = spec.roles.label is not None
    for named in {name, *spec.training.baselines} & CATALOG.keys():
        if CATALOG[named].labels != "none" and not labelled:
            key: Key = ("detector", "name") if named == name else ("training", "baselines")
            text = f"{named} learns from labels; expected a column with the role label, found none"
            found.append((key, text))
        if CATALOG[named].labels == "none":
            found += _sees_labels(spec, named)
    if spec.training.trim and CATALOG[name].labels != "none":
        # The rows of highest loss are the labelled anomalies, which it is to learn from.
        text = f"expected 0 for {name}, which learns from labels, found {spec.training.trim:g}"
        found.append((("training", "trim"), text))
    return [*_wrong_options(spec), *found]


def _sees_labels(spec: Spec, named: str) -> list[tuple[Key, str]]:
    """Labels reach no detector that does without: not as a rate of earlier ones either, unless the
    spec says that these are facts of the past to it, as the cards known as stolen are to a bank."""
    if spec.training.earlier_labels:
        return []
    learner = "auto may choose a detector that learns" if named == AUTO else f"{named} learns"
    text = f"{learner} without labels and must not see any, not even earlier ones"
    if named == spec.detector.name:
        advice = "choose a detector that learns from labels"
    else:
        advice = "take it out of training.baselines ([] for none)"
    return [
        (
            ("history", index, "labels"),
            f"{text}; {advice}, remove the entry, or say training.earlier_labels: true",
        )
        for index, entry in enumerate(spec.history)
        if entry.labels
    ]


def _wrong_options(spec: Spec) -> list[tuple[Key, str]]:
    """Each option by itself, so that all wrong ones are told; then all of them together."""
    name, options = spec.detector.name, spec.detector.options
    found: list[tuple[Key, str]] = []
    for option, value in options.items():
        try:
            _configured(name, {option: value})
        except Refusal as refusal:
            found.append((("detector", option), str(refusal)))
    if found:
        return found
    try:
        _configured(name, options)
    except Refusal as refusal:
        return [(("detector",), str(refusal))]
    return []


def _configured(name: str, options: dict[str, Any]) -> None:
    if name == AUTO:
        check_options(AutoConfig, name, options)
    else:
        CATALOG.configure(name, options)
