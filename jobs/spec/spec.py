"""Loads the spec of a watch and checks every key before anything starts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, PrivateAttr, ValidationError, model_validator

from cluster.lake.derived.derivation import Derivation
from cluster.lake.input import partitions
from cluster.lake.input.filter_syntax import mark_times
from cluster.lake.storage.opening import find_place, is_inside
from jobs.spec import derived
from jobs.spec import source as yaml_source
from jobs.spec.columns import Column, Frozen, check_columns, collect_roles
from jobs.spec.derived import Histories, HistoryEntry, WindowSection
from jobs.spec.errors import key_errors, translate
from jobs.spec.sections import (
    THRESHOLDS,
    Alerts,
    BudgetThreshold,
    BundlePolicy,
    CostThreshold,
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

__all__ = ["Spec", "SpecRefused", "load"]

if TYPE_CHECKING:  # imports scipy, so only `policy` imports it at run time
    from models.scores.threshold import Policy


class Spec(Frozen):
    """One watch: its input, detector and output. `load` makes it; equal specs have equal digests.

    >>> load("specs/demo_flows.yaml").detector.name
    'autoencoder'
    """

    name: Name
    """Name of the watch in messages, metrics and run cards: letters, digits, _ and -."""
    input: Input
    columns: Annotated[dict[str, Column], AfterValidator(check_columns)]
    """The columns of the input by name; a field of a struct by its path, such as `id.orig_h`. Other
    columns of the input are not read."""
    history: Histories = ()
    """Features from the earlier rows of the same entity."""
    window: WindowSection | None = None
    """A series for each row, from the last rows of its entity."""
    detector: NamedDetector
    """The detector and its options."""
    training: Training = Training()
    threshold: ThresholdChoice
    """How the threshold on the scores is chosen."""
    output: Output
    gates: Gates = Gates()
    nightly: Nightly = Nightly()
    bundle: BundlePolicy = BundlePolicy()
    alerts: Alerts = ()
    """Webhooks for messages about a night."""

    _source: Source = PrivateAttr(default=Source("spec"))

    @model_validator(mode="after")
    def _check(self) -> "Spec":
        found: list[tuple[Key, str]] = []
        roles = collect_roles(self.columns)
        policy = self.threshold.policy
        if policy in ("f_beta", "cost") and roles.label is None:
            text = f"{policy} needs a column with the role label, found none"
            found.append((("threshold", "policy"), text))
        by_entity = getattr(self.threshold, "per", None) == "day_and_entity"
        if by_entity and not roles.entity:
            text = "day_and_entity needs a column with the role entity, found none"
            found.append((("threshold", "per"), text))
        for key, uri in (("input", self.input.uri), ("training", self.training.uri)):
            if uri is None:
                continue
            if is_inside(self.output.uri, uri):
                text = f"expected a folder outside of {key}.uri, found {self.output.uri!r} in it"
                found.append((("output", "uri"), f"{text}: it would be read as input"))
            elif is_inside(uri, self.output.uri):
                text = f"expected a folder outside of output.uri, found {uri!r} in it"
                found.append(((key, "uri"), f"{text}: its files would count as the watch's own"))
        found += derived.check_derived(self.columns, self.history, self.window)
        if found:
            raise key_errors(found)
        return self

    @property
    def left_out(self) -> frozenset[str]:
        """The columns whose line in the spec is a comment."""
        return self._source.left_out

    @property
    def features(self) -> tuple[FeatureColumn, ...]:
        """The features in the order of the spec, then the derived ones."""
        columns = (column.feature(name) for name, column in self.columns.items())
        given = tuple(feature for feature in columns if feature is not None)
        derivation = self.derivation
        return derived.add_features(given, derivation, self.window) if derivation else given

    @property
    def derivation(self) -> Derivation | None:
        """The columns that are derived from other rows; None if there are none."""
        return derived.build_derivation(
            self.columns, self.history, self.window, self.input_filter, self.training_filter
        )

    @property
    def input_filter(self) -> str | None:
        """`input.filter`, with its times marked."""
        return self._mark_times(self.input.filter)

    @property
    def training_filter(self) -> str | None:
        """`training.filter`, with its times marked."""
        return self._mark_times(self.training.filter)

    @property
    def roles(self) -> Roles:
        roles, derivation = collect_roles(self.columns), self.derivation
        return derived.add_roles(roles, derivation) if derivation else roles

    def source(self, uri: str | None = None) -> partitions.Source:
        """The input, or the data at another URI whose folders have the same layout."""
        partition = self.input.partition
        return partitions.Source(uri or self.input.uri, partition, self.input.values)

    @property
    def trains_apart(self) -> bool:
        """Whether the training rows are in another place than the input."""
        return find_place(self.training_uri) != find_place(self.input.uri)

    @property
    def training_uri(self) -> str:
        return self.training.uri or self.input.uri

    @property
    def policy(self) -> "Policy":
        """The threshold policy, as a value of `models.scores.threshold`."""
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
        """SHA-256 of all keys that decide the scores, reasons and rows of a run for a given bundle
        and data.

        Left out: the URIs (the digest of the snapshot identifies the data), the detector, training
        and threshold (the run has the digests of the bundle and of the threshold), and the gates
        and nights (they stop or start a run but do not change its result).
        """
        given = {"filter": self.input.filter, "columns": self._columns(), **_dump(self.output)}
        del given["uri"]
        return _digest(given)

    @property
    def training_digest(self) -> str:
        """SHA-256 of all keys that decide the bundle for given data: columns, derived columns,
        detector and training.

        Left out: the URI (as in `scoring_digest`) and the baselines.
        """
        training = _dump(self.training)
        del training["uri"], training["baselines"]
        detector = {"name": self.detector.name, "options": self.detector.options}
        given = {"filter": self.input.filter, "columns": self._columns(), "training": training}
        others = {key: _dump(self)[key] for key in ("history", "window")}
        return _digest({**given, **others, "detector": detector})

    @property
    def digest(self) -> str:
        """SHA-256 of the whole spec, without the comments and layout of the file."""
        return _digest({**_dump(self), "columns": self._columns()})

    def without_answers(self, names: Iterable[str]) -> "Spec":
        """The spec without the label and kind that are not in `names`, the columns of the data: a
        night has no labels yet. Other columns stay."""
        missing = {self.roles.label, self.roles.kind} - set(names)
        columns = {name: c for name, c in self.columns.items() if name not in missing}
        spec = self.model_copy(update={"columns": columns})
        spec._source = self._source
        return spec

    @property
    def path(self) -> str:
        """The file that the spec was read from."""
        return self._source.path

    def where(self, *key: str | int) -> str:
        """`file:line` of a key, for messages."""
        return self._source.where(*key)

    def _mark_times(self, text: str | None) -> str | None:
        """The filter that compares columns of times with texts as times."""
        times = {"time", "timestamp"}
        units = {name: one.unit for name, one in self.columns.items() if times & set(one.role)}
        return text and mark_times(text, units)

    def _columns(self) -> list[list[Any]]:
        """A list, because the order of the columns is the order of the features."""
        return [[name, _dump(column)] for name, column in self.columns.items()]


def load(path: Path | str) -> Spec:
    """Read and check a spec file. Raises `SpecRefused` with every problem and its line."""
    path = Path(path)
    if not path.exists():
        found = sorted(path.parent.glob("*.y*ml"))
        more = f" (the folder has {join_names(map(str, found))})" if found else ""
        # Folder and ending are the same for all, so the names alone must be alike.
        near = suggest(str(path), [str(f) for f in found if suggest(path.stem, [f.stem])])
        raise SpecRefused([f"{path}: expected a spec, found no such file{near}{more}"])
    document, source = yaml_source.read(path)
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        raise translate(error, source, _list_keys(document)) from None
    spec._source = source
    return spec


def _list_keys(document: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """The valid keys of every section of this document."""
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


def _dump(model: Frozen) -> dict[str, Any]:
    return model.model_dump(mode="json")


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json.encode(document)).hexdigest()
