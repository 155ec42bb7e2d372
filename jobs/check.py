"""Compares a spec with the data, without reading rows."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cluster.lake.days import to_date
from cluster.lake.input.file_types import Drift, find_common_schema, find_drift
from cluster.lake.input.filters import parse_filter
from cluster.lake.input.input_file import InputFile
from cluster.lake.input.layout import parse_layout, propose
from cluster.lake.input.partitions import Source, find_days
from cluster.lake.input.snapshot import Snapshot, list_days_with_rows, take_snapshot
from cluster.lake.input.struct_columns import is_field_of, is_struct
from cluster.lake.output.schemas import flag_schema
from cluster.lake.types.unify import is_number
from cluster.scoring.disguise import Disguise
from jobs import input_rows
from jobs.alerting import alerts
from jobs.output import open_output
from jobs.spec.spec import Spec, load
from models.columns import Roles, Text, Timestamp
from models.encoding.extractor import Extractor
from models.refusal import Refusal, SchemaMismatch
from models.schema import USABLE, check_names, find_signature
from models.suggestion import join_names

if TYPE_CHECKING:  # imports torch
    pass


@dataclass(frozen=True)
class Report:
    """The result of a check. Errors and warnings begin with `file:line:` of the spec."""

    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()  # the checked data: URI, day, files, rows

    @property
    def ok(self) -> bool:
        return not self.errors

    def refuse(self) -> None:
        """Raises `Refusal` with all errors, if there are any."""
        if self.errors:
            raise Refusal("\n".join(self.errors))

    def __add__(self, other: "Report") -> "Report":
        """The lines of both, each once: training and input are often the same data."""

        def merge(mine: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(mine + theirs))

        return Report(
            merge(self.errors, other.errors),
            merge(self.warnings, other.warnings),
            merge(self.inputs, other.inputs),
        )


def check(spec: Spec, schema: pa.Schema, *, training: bool = False) -> Report:
    """Compare the spec with the schema of its input, or of its training data if `training`."""
    errors = _check_columns(spec, schema, training)
    errors += _check_filters(spec, schema, training, types=not errors)
    if not errors:
        errors.extend((*_check_flags(spec, schema), *_check_hidden(spec, schema)))
    return Report(tuple(errors), tuple(_warn(spec, schema)))


def agree_on_schema(
    spec: Spec,
    snapshots: Sequence[Snapshot],
    *,
    training: bool = False,
    extractor: Extractor | None = None,
) -> pa.Schema:
    """The schema that all files of the snapshots have in common.

    Raises `Refusal` where a file does not fit it, or where it does not fit the spec or the
    extractor of a bundle.
    """
    files = [file for taken in snapshots for file in taken.files]
    schema = find_common_schema(files)
    if drifts := _find_drift(spec, files, schema, extractor):
        lines = list(map(str, drifts))
        if training and any(drift.found is None for drift in drifts):
            lines.append(
                "choose training.days that have the columns, or leave them out of the spec"
            )
        raise SchemaMismatch("\n".join(lines))
    report = check(spec, schema, training=training)
    if not report.ok and not any(file.rows for file in files):  # of no rows, types say nothing
        days = ", ".join(taken.day for taken in snapshots[:5])
        raise Refusal(f"expected rows in {days} of {spec.input.uri}, found none")
    report.refuse()
    if extractor:
        extractor.check_schema(schema)
    return schema


def _find_drift(
    spec: Spec, files: Sequence[InputFile], schema: pa.Schema, extractor: Extractor | None = None
) -> tuple[Drift, ...]:
    """Files that differ in a column that is read, which is named by its use in the spec."""
    sources = {source.column.name: source for source in extractor.sources} if extractor else {}
    roles = spec.roles

    def fits(name: str, kind: pa.DataType) -> bool:
        source = sources.get(name)
        same = source is None or find_signature(source.column, kind) == source.signature
        return same and (name not in spec.columns or _find_wanted(spec, roles, name, kind) is None)

    needed = [*spec.columns, *sources]
    for text in (spec.input_filter, spec.training_filter):
        with suppress(Refusal):  # `check` says what is wrong with a filter
            needed += parse_filter(text, schema.names).columns if text else ()
    return find_drift(files, needed, fits, (*roles.flagged, *filter(None, [roles.kind])))


def run(path: Path | str) -> Report:
    """Load the spec and compare it with the newest rows of its input and of its training data."""
    spec = load(path)
    report = Report()
    try:
        from jobs.spec.detector import check_detector  # imports torch

        check_detector(spec)
    except Refusal as refusal:
        report += Report(errors=tuple(str(refusal).splitlines()))
    try:
        open_output(spec)
    except Refusal as refusal:
        report += Report(errors=(f"{spec.where('output', 'uri')}: output.uri: {refusal}",))
    apart = spec.trains_apart
    report += _check_data(spec, spec.input.uri, ("input", "uri"), training=not apart)
    if apart:
        report += _check_data(spec, spec.training_uri, ("training", "uri"), training=True)
    # Only warnings: the URL and the hosts may be set in the environment of the night alone.
    return report + Report(warnings=(*alerts.find_problems(spec), *_check_sensitive(spec)))


def _check_sensitive(spec: Spec) -> Iterator[str]:
    """Warns of sensitive values in the bundle, and of a missing key."""
    for name in sorted(spec.roles.sensitive & spec.columns.keys()):
        if "categorical" in spec.columns[name].role:
            where = spec.where("columns", name, "sensitive")
            yield (
                f"{where}: column '{name}' is sensitive and categorical, so the bundle holds its "
                "most frequent values: protect the registry like the input, or remove the role"
            )
    try:
        Disguise.of(spec.roles)
    except Refusal as refusal:
        yield f"{spec.where('columns')}: {refusal}"


def _check_data(spec: Spec, uri: str, key: tuple[str, str], *, training: bool) -> Report:
    """Compares the spec with the newest day with rows at `uri`, the value of `key`."""
    where, source = spec.where(*key), spec.source(uri)
    place = f"{where}: {'.'.join(key)}"
    try:
        found = find_days(source)
        days = found.names
        stray = tuple(f"{where}: of no day, and never read: {one}" for one in found.stray)
        if not days:
            folders = f"{source.layout.text} folders with " if source.layout else ""
            text = f"expected {folders}Parquet files in {uri!r}, found none"
            return Report(errors=(f"{place}: {text}",), warnings=stray)
        day = next(list_days_with_rows(source, days), days[-1])
        taken = take_snapshot(source, day)
        input_rows.preview_derivation(spec, uri, day)
    except Refusal as refusal:
        return Report(errors=(f"{place}: {refusal}",))
    version = "" if taken.version is None else f", version {taken.version}"
    files = f"{len(taken.files)} files, {taken.rows:,} rows"
    checked = f"{uri}{version}, day {day} of {len(days)}: {files}"
    rejected = tuple(f"{where}: {file.key}: {file.message}" for file in taken.rejected)
    finer = _warn_of_finer_days(spec, source, taken)
    empty = [
        f"{where}: {text}" for text in input_rows.describe_empty(day, days[days.index(day) + 1 :])
    ]
    report = Report(warnings=(*stray, *empty, *rejected, *finer), inputs=(checked,))
    if not taken.files:
        text = f"expected a readable Parquet file in day {day}, found none"
        return report + Report(errors=(f"{place}: {text}",))
    drifted = tuple(
        f"{spec.where('columns', one.column)}: {one}"
        for one in _find_drift(spec, taken.files, taken.schema)
    )
    report += _check_days(spec, days, training) + Report(errors=drifted)
    return report if drifted else report + check(spec, taken.schema, training=training)


def _warn_of_finer_days(spec: Spec, source: Source, taken: Snapshot) -> Iterator[str]:
    """Warns where the folders below a day name dates: then the spec takes something else for it."""
    if source.layout is None or taken.files == () or to_date(taken.day) is not None:
        return
    better = propose([taken.files[0].path.split("/")[:-1]])
    if better is not None and parse_layout(better) != source.layout:
        where = spec.where("input", "partition")
        yield (
            f"{where}: input.partition: {taken.day} of {source.layout.text} is taken for a day, "
            f"but the folders name dates, as {taken.files[0].key} shows: expected {better}"
        )


def _check_days(spec: Spec, days: tuple[str, ...], training: bool) -> Report:
    """Training days that do not exist, such as after a typo in a date."""
    wanted = spec.training.day_range
    if wanted is None or not training:
        return Report()
    try:
        wanted.require(days, spec.training_uri)
    except Refusal as refusal:
        return Report(errors=(f"{spec.where('training', 'days')}: training.days: {refusal}",))
    return Report()


def _check_columns(spec: Spec, schema: pa.Schema, training: bool) -> list[str]:
    errors: list[str] = []
    roles = spec.roles
    for name in spec.columns:
        where = spec.where("columns", name)
        if missing := check_names([name], schema):
            errors.append(f"{where}: {missing[0]}")
            continue
        found = schema.field(name).type
        if pa.types.is_null(found) and training:
            text = f"column '{name}' has no type: every value is null"
            errors.append(f"{where}: {text}; remove it from the spec, or write it with a type")
        elif wanted := _find_wanted(spec, roles, name, found):
            role = join_names(spec.columns[name].role)
            text = f"column '{name}' as {role}: expected {wanted}, found {found}"
            errors.append(f"{where}: {text}; change its role, or cast it in the input")
    return errors


def _find_wanted(spec: Spec, roles: Roles, name: str, found: pa.DataType) -> str | None:
    """The types that a column's roles can use, where it has another; None where it has not."""
    feature = spec.columns[name].feature(name)
    time = Timestamp(name, roles.time_unit)
    if pa.types.is_null(found):
        return None
    if feature is not None and find_signature(feature, found) is None:
        return USABLE[type(feature)]
    if name == roles.time and find_signature(time, found) is None:
        return USABLE[Timestamp]
    if name == roles.label:
        texts = any(isinstance(value, str) for value in roles.normal)
        if texts and find_signature(Text(name), found) is None:
            return "text, since its normal values are texts"
        if not texts and not is_number(found):
            return "0 or 1 as a number, a boolean, or text with `normal: [...]`"
    if name in (*roles.id, *roles.entity, roles.kind) and pa.types.is_nested(found):
        return "a plain value such as text or a number"
    return None


def _check_filters(spec: Spec, schema: pa.Schema, training: bool, types: bool) -> list[str]:
    """Filters that cannot be read or, if `types`, that do not fit the types of their columns."""
    filters = {("input", "filter"): spec.input_filter}
    if training:
        filters[("training", "filter")] = spec.training_filter
    errors = []
    for key, text in filters.items():
        if text is None:
            continue
        try:
            row_filter = parse_filter(text, schema.names)
            if types and not check_names(row_filter.columns, schema):
                row_filter.check(schema)
        except Refusal as refusal:
            errors.append(f"{spec.where(*key)}: {'.'.join(key)}: {refusal}")
    return errors


def _check_flags(spec: Spec, schema: pa.Schema) -> list[str]:
    """Columns that the table of flags cannot hold."""
    try:
        flag_schema(schema, spec.roles)
    except Refusal as refusal:
        return [f"{spec.where('columns')}: columns: {refusal}"]
    return []


def _is_named(name: str, spec: Spec, schema: pa.Schema) -> bool:
    """Whether the spec names the column, be it in a comment, a struct that it is a field of, or, of
    a struct, a field.

    Of a struct that the spec does not name at all, only the fields count."""
    known = (*spec.columns, *spec.left_out)
    if name in known or any(is_field_of(name, named) for named in known):
        return True
    return any(is_struct(field.type) for field in schema if field.name == name)


def _check_hidden(spec: Spec, schema: pa.Schema) -> list[str]:
    """Structs that flags would carry whole, with a field that the spec hides."""
    errors = []
    for name in spec.roles.flagged:
        shown = name in schema.names and name not in spec.roles.sensitive
        if not shown or not is_struct(schema.field(name).type):
            continue
        for hidden in sorted(one for one in spec.roles.sensitive if is_field_of(one, name)):
            text = f"column '{name}' would show its field '{hidden}', which is sensitive"
            where = spec.where("columns", name)
            errors.append(f"{where}: {text}; name the fields that flags may carry instead")
    return errors


def _warn(spec: Spec, schema: pa.Schema) -> list[str]:
    warnings = []
    counts = Counter(schema.names)
    extra = [name for name in counts if not _is_named(name, spec, schema)]
    if extra:
        text = (
            f"the input has {len(extra)} columns that the spec does not name: {join_names(extra)}"
        )
        warnings.append(f"{spec.where('columns')}: {text}; they are not read")
    if not spec.roles.id:
        text = "no column has the role id: flags are named by file and row"
        warnings.append(f"{spec.where('columns')}: {text}, which change when files are rewritten")
    for name, column in spec.columns.items():
        if counts[name] != 1 or not {"time", "timestamp"} & set(column.role):
            continue
        found = schema.field(name).type
        if pa.types.is_timestamp(found) and found.tz is None:
            text = f"column '{name}' has no time zone; it is read as UTC"
            warnings.append(f"{spec.where('columns', name)}: {text}")
    return warnings
