"""Does the spec fit the data? All that can be said without reading a row."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.lake.input.filters import parse_filter
from cluster.lake.input.partitions import list_days
from cluster.lake.input.snapshot import find_drift, take_snapshot
from cluster.lake.output.schemas import flag_schema
from cluster.scoring.disguise import Disguise
from jobs import input_rows
from jobs.alerting import alerts
from jobs.spec.detector import check_detector
from jobs.spec.spec import Spec, load
from models.columns import Timestamp
from models.refusal import Refusal
from models.schema import USABLE, check_names, find_signature
from models.suggestion import join_names


@dataclass(frozen=True)
class Report:
    """What `check` found; each line begins with `file:line:` of the spec."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()  # what was looked at: URI, day, files, rows

    @property
    def ok(self) -> bool:
        return not self.errors

    def refuse(self) -> None:
        """Raises `Refusal` with all errors, where there are any."""
        if self.errors:
            raise Refusal("\n".join(self.errors))

    def __add__(self, other: "Report") -> "Report":
        """Both, each line once: training and input are often the same data."""

        def merged(mine: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(mine + theirs))

        return Report(
            merged(self.errors, other.errors),
            merged(self.warnings, other.warnings),
            merged(self.seen, other.seen),
        )


def check(spec: Spec, schema: pa.Schema, *, training: bool = False) -> Report:
    """Compare the spec with the schema of its input, or with `training` of its training data."""
    errors = [*_wrong_columns(spec, schema), *_wrong_filters(spec, schema, training)]
    if not errors:
        errors.extend(_wrong_flags(spec, schema))
    return Report(tuple(errors), tuple(_warnings(spec, schema)))


def refuse(spec: Spec, schema: pa.Schema, uri: str) -> None:
    """Raises `Refusal` with all that does not fit between the spec and the data at `uri`."""
    check(spec, schema, training=uri == spec.training_uri).refuse()


def run(path: Path | str) -> Report:
    """Load the spec and check it against the newest day of its input and of its training data."""
    spec = load(path)
    report = Report()
    try:
        check_detector(spec)
    except Refusal as refusal:
        report += Report(errors=tuple(str(refusal).splitlines()))
    apart = spec.training_uri != spec.input.uri
    report += _look(spec, spec.input.uri, ("input", "uri"), training=not apart)
    if apart:
        report += _look(spec, spec.training_uri, ("training", "uri"), training=True)
    # Warnings: the URL and the list of hosts are in the environment of the night, not of this.
    return report + Report(warnings=(*alerts.find_problems(spec), *_of_sensitive(spec)))


def _of_sensitive(spec: Spec) -> Iterator[str]:
    """What is not hidden of sensitive columns, and a key that is not here."""
    for name in sorted(spec.roles.sensitive & spec.columns.keys()):
        if "categorical" in spec.columns[name].role:
            where = spec.where("columns", name, "sensitive")
            yield (
                f"{where}: column '{name}' is sensitive, and as a category its commonest values "
                "are in the bundle: protect the registry as the input, or take the role away"
            )
    try:
        Disguise.of(spec.roles)
    except Refusal as refusal:
        yield f"{spec.where('columns')}: {refusal}"


def _look(spec: Spec, uri: str, key: tuple[str, str], *, training: bool) -> Report:
    where = spec.where(*key)
    try:
        days = list_days(uri, spec.input.partition)
        if not days:
            folders = f"{spec.input.partition}=… folders with " if spec.input.partition else ""
            text = f"expected {folders}Parquet files in {uri!r}, found none"
            return Report(errors=(f"{where}: {'.'.join(key)}: {text}",))
        taken = take_snapshot(uri, spec.input.partition, days[-1])
        input_rows.preview_derivation(spec, uri, days[-1])
    except Refusal as refusal:
        return Report(errors=(f"{where}: {'.'.join(key)}: {refusal}",))
    seen = f"{uri}, day {days[-1]} of {len(days)}: {len(taken.files)} files, {taken.rows:,} rows"
    rejected = tuple(f"{where}: {file.key}: {file.message}" for file in taken.rejected)
    report = Report(warnings=rejected, seen=(seen,))
    if not taken.files:
        text = f"expected a readable Parquet file in day {days[-1]}, found none"
        return report + Report(errors=(f"{where}: {'.'.join(key)}: {text}",))
    drifted = tuple(
        f"{spec.where('columns', one.column)}: {one}"
        for one in find_drift(taken, tuple(spec.columns))
    )
    report += _wrong_days(spec, days, training) + Report(errors=drifted)
    return report + check(spec, taken.schema, training=training)


def _wrong_days(spec: Spec, days: tuple[str, ...], training: bool) -> Report:
    """Training days that are not there: a typo in a date trains on nothing."""
    wanted = spec.training.day_range
    if wanted is None or not training or any(day in wanted for day in days):
        return Report()
    text = f"expected days between {days[0]} and {days[-1]}, found {spec.training.days}"
    return Report(errors=(f"{spec.where('training', 'days')}: training.days: {text}",))


def _wrong_columns(spec: Spec, schema: pa.Schema) -> list[str]:
    errors: list[str] = []
    evaluation = spec.roles.kind
    features = {feature.name: feature for feature in spec.features}
    for name in spec.columns:
        where = spec.where("columns", name)
        if missing := check_names([name], schema):
            errors.append(f"{where}: {missing[0]}")
            continue
        found = schema.field(name).type
        wanted = None
        if pa.types.is_null(found):
            text = f"column '{name}' has no type: every value is null"
            errors.append(f"{where}: {text}; remove it from the spec, or write it with a type")
        elif name in features and find_signature(features[name], found) is None:
            wanted = USABLE[type(features[name])]
        elif name == spec.roles.time and find_signature(Timestamp(name), found) is None:
            wanted = USABLE[Timestamp]
        elif name == spec.roles.label and not _is_label(found):
            wanted = "0 or 1 as an integer, a boolean or a float"
        elif name in (*spec.roles.id, *spec.roles.entity, evaluation) and pa.types.is_nested(found):
            wanted = "a plain value such as text or a number"
        if wanted:
            role = join_names(spec.columns[name].role)
            text = f"column '{name}' as {role}: expected {wanted}, found {found}"
            errors.append(f"{where}: {text}; change its role, or cast it in the input")
    return errors


def _is_label(found: pa.DataType) -> bool:
    return any(
        is_type(found)
        for is_type in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
    )


def _wrong_filters(spec: Spec, schema: pa.Schema, training: bool) -> list[str]:
    filters = {("input", "filter"): spec.input.filter}
    if training:
        filters[("training", "filter")] = spec.training.filter
    errors = []
    for key, text in filters.items():
        if text is None:
            continue
        try:
            parse_filter(text, schema.names)
        except Refusal as refusal:
            errors.append(f"{spec.where(*key)}: {'.'.join(key)}: {refusal}")
    return errors


def _wrong_flags(spec: Spec, schema: pa.Schema) -> list[str]:
    """Columns that the table of flags cannot carry."""
    try:
        flag_schema(schema, spec.roles)
    except Refusal as refusal:
        return [f"{spec.where('columns')}: columns: {refusal}"]
    return []


def _warnings(spec: Spec, schema: pa.Schema) -> list[str]:
    warnings = []
    counts = Counter(schema.names)
    extra = [name for name in counts if name not in spec.columns]
    if extra:
        text = (
            f"the input has {len(extra)} columns that the spec does not name: {join_names(extra)}"
        )
        warnings.append(f"{spec.where('columns')}: {text}; they are not read")
    if not spec.roles.id:
        text = "no column has the role id; a flag is then named by its file and row"
        warnings.append(f"{spec.where('columns')}: {text}, which change when files are rewritten")
    for name, column in spec.columns.items():
        if counts[name] != 1 or not {"time", "timestamp"} & set(column.role):
            continue
        found = schema.field(name).type
        if pa.types.is_timestamp(found) and found.tz is None:
            text = f"column '{name}' is a time without a zone; it is taken as UTC"
            warnings.append(f"{spec.where('columns', name)}: {text}")
    return warnings
