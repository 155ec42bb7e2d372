"""The spec of a watch: one YAML file, checked to the last key before anything starts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, PrivateAttr, ValidationError, model_validator

from cluster.lake.derived.derivation import Derivation
from jobs.spec import columns as spec_columns
from jobs.spec import derived as spec_derived
from jobs.spec import source as spec_yaml
from jobs.spec.columns import Column, Frozen
from jobs.spec.derived import Histories, HistoryEntry, WindowSection
from jobs.spec.errors import problems, refused
from jobs.spec.sections import (
    THRESHOLDS,
    Alerts,
    BudgetThreshold,
    BundlePolicy,
    CostThreshold,
    DayRange,
    ExtremeValueThreshold,
    FBetaThreshold,
    Gates,
    Input,
    Name,
    NamedDetector,
    Nightly,
    Output,
    QuantileThreshold,
    ThresholdChoice,
    Training,
)
from jobs.spec.source import Key, Source, SpecRefused
from models import canonical_json
from models.columns import FeatureColumn, Roles
from models.suggestion import join_names, suggest

__all__ = ["DayRange", "Spec", "SpecRefused", "load"]

if TYPE_CHECKING:  # the threshold policies bring scipy along: imported when they are asked for
    from models.scores.threshold import Policy


class Spec(Frozen):
    """One watch. Made by `load`; equal specs have equal digests."""

    name: Name
    input: Input
    columns: Annotated[dict[str, Column], AfterValidator(spec_columns.column_names)]
    history: Histories = ()
    window: WindowSection | None = None
    detector: NamedDetector
    training: Training = Training()
    threshold: ThresholdChoice
    output: Output
    gates: Gates = Gates()
    nightly: Nightly = Nightly()
    bundle: BundlePolicy = BundlePolicy()
    alerts: Alerts = ()

    _source: Source = PrivateAttr(default=Source("spec"))

    @model_validator(mode="after")
    def _fits(self) -> "Spec":
        found: list[tuple[Key, str]] = []
        roles = spec_columns.roles(self.columns)
        policy = self.threshold.policy
        if policy in ("f_beta", "cost") and roles.label is None:
            text = f"the policy {policy} needs a column with the role label, found none"
            found.append((("threshold", "policy"), text))
        by_entity = getattr(self.threshold, "per", None) == "day_and_entity"
        if by_entity and not roles.entity:
            text = "a budget a day and entity needs a column with the role entity, found none"
            found.append((("threshold", "per"), text))
        for key, uri in (("input", self.input.uri), ("training", self.training.uri)):
            if uri is not None and _inside(self.output.uri, uri):
                text = f"expected a place outside of {key}.uri, found {self.output.uri!r} in it"
                found.append((("output", "uri"), f"{text}: it would be read as input"))
        found += spec_derived.wrong_derived(self.columns, self.history, self.window)
        if found:
            raise problems(found)
        return self

    @property
    def features(self) -> tuple[FeatureColumn, ...]:
        """The features in the order of the spec, then those that are derived."""
        columns = (column.feature(name) for name, column in self.columns.items())
        given = tuple(feature for feature in columns if feature is not None)
        derivation = self.derivation
        return spec_derived.features(given, derivation, self.window) if derivation else given

    @property
    def derivation(self) -> Derivation | None:
        """What is derived from other rows before anything else; None where nothing is."""
        return spec_derived.derivation(
            self.columns, self.history, self.window, self.input.filter, self.training.filter
        )

    @property
    def roles(self) -> Roles:
        roles, derivation = spec_columns.roles(self.columns), self.derivation
        return spec_derived.with_derived(roles, derivation) if derivation else roles

    @property
    def training_uri(self) -> str:
        return self.training.uri or self.input.uri

    @property
    def policy(self) -> "Policy":
        """The threshold policy as `models.scores.threshold` has it."""
        from models.scores import threshold

        match self.threshold:
            case QuantileThreshold(contamination=contamination):
                return threshold.Quantile(contamination)
            case BudgetThreshold(flags=flags, per=per):
                return threshold.Budget(flags, per)
            case FBetaThreshold(beta=beta):
                return threshold.FBeta(beta)
            case CostThreshold(false_positive=positive, false_negative=negative):
                return threshold.Cost(positive, negative)
            case ExtremeValueThreshold(probability=probability, tail_fraction=tail):
                return threshold.ExtremeValue(probability, tail)

    @property
    def scoring_digest(self) -> str:
        """SHA-256 of what decides the scores, reasons and rows of a run, given bundle and data.

        Left out: the URIs (the snapshot's digest says what was read, wherever it lies), the
        detector, training and threshold (the run has the digests of the bundle and the threshold
        that came of them), and gates and nights (they stop or start a run, and change none).
        """
        given = {"filter": self.input.filter, "columns": self._columns(), **_dump(self.output)}
        del given["uri"]
        return _digest(given)

    @property
    def training_digest(self) -> str:
        """SHA-256 of what decides the bundle, given the data: columns (those that are
        derived too), detector and training.

        Left out: the URI (as in `scoring_digest`) and the baselines, which stand beside.
        """
        training = _dump(self.training)
        del training["uri"], training["baselines"]
        detector = {"name": self.detector.name, "options": self.detector.options}
        given = {"filter": self.input.filter, "columns": self._columns(), "training": training}
        derived = {key: _dump(self)[key] for key in ("history", "window")}
        return _digest({**given, **derived, "detector": detector})

    @property
    def digest(self) -> str:
        """SHA-256 of the whole spec; comments and layout of the file do not count."""
        return _digest({**_dump(self), "columns": self._columns()})

    def without_answers(self, names: Iterable[str]) -> "Spec":
        """The spec for data that has only the columns `names`: a night has no labels yet, so a
        label or kind that is missing is left out. Other columns stay, missing or not."""
        there = set(names)
        answers = {self.roles.label, self.roles.kind} - there - {None}
        kept = {name: c for name, c in self.columns.items() if name not in answers}
        made = self.model_copy(update={"columns": kept})
        made._source = self._source
        return made

    @property
    def path(self) -> str:
        """The file that the spec was read from."""
        return self._source.path

    def where(self, *key: str | int) -> str:
        """`file:line` of a key, for messages."""
        return self._source.where(*key)

    def _columns(self) -> list[list[Any]]:
        """As a list: the order of the columns is the order of the features."""
        return [[name, _dump(column)] for name, column in self.columns.items()]


def load(path: Path | str) -> Spec:
    """Read and check a spec file; raises `SpecRefused` with every problem, each with its line."""
    path = Path(path)
    if not path.exists():
        there = sorted(str(file) for file in path.parent.glob("*.y*ml"))
        more = f" (there is: {join_names(there)})" if there else ""
        raise SpecRefused(
            [f"{path}: expected a spec, found no such file{suggest(str(path), there)}{more}"]
        )
    document, source = spec_yaml.read(path)
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        raise refused(error, source, _keys(document)) from None
    spec._source = source
    return spec


def _keys(document: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The valid keys of every place of this document."""
    places: dict[str, type[Frozen]] = {
        "": Spec,
        "columns.*": Column,
        "input": Input,
        "history.*": HistoryEntry,
        "window": WindowSection,
        "training": Training,
        "output": Output,
        "gates": Gates,
        "nightly": Nightly,
        "bundle": BundlePolicy,
    }
    chosen = document.get("threshold")
    policy = chosen.get("policy") if isinstance(chosen, dict) else None
    for model in THRESHOLDS:
        if policy in model.model_fields["policy"].annotation.__args__:  # type: ignore[union-attr]
            places["threshold"] = model
    return {place: tuple(model.model_fields) for place, model in places.items()}


def _inside(uri: str, folder: str) -> bool:
    if "://" not in uri and "://" not in folder:
        return Path(uri).absolute().is_relative_to(Path(folder).absolute())
    return f"{uri.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _dump(model: Frozen) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json.encode(document)).hexdigest()
