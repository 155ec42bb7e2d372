"""Writes a first spec from a sample of the data: every column with a role and the reason."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cluster.lake.input import limits
from cluster.lake.input.arrow_types import to_storage_array
from cluster.lake.input.file_types import find_drift
from cluster.lake.input.folder_columns import add_columns
from cluster.lake.input.layout import list_columns
from cluster.lake.input.partitions import Source, list_days, propose_partition
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.storage.opening import open_store
from cluster.lake.types.casting import cast_exactly
from jobs.inference.detector import choose_detector
from jobs.inference.roles import Inferred, infer
from jobs.spec.columns import FEATURES
from jobs.spec.reference import schema_line
from models.refusal import Refusal
from models.schema import check_names, refuse

MOST_ROWS = 50_000  # a sample: 20,000 rows already distinguish a port from a counter
MOST_FILES = 4
SAMPLE_BATCH = 8_192

WHOLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
YAML_WORDS = {"true", "false", "null"}


@dataclass(frozen=True)
class Sample:
    """What a sample of the newest day shows of the data at `uri`."""

    source: Source
    days: tuple[str, ...]
    rows: int
    columns: tuple[Inferred, ...]


def init(uri: str, output: Path) -> str:
    """The text of a spec for the data at `uri`, to be written to `output`.

    Raises `Refusal` if there is no Parquet file, or no column that a detector could use.
    """
    return render(look(uri), output)


def look(uri: str) -> Sample:
    """Read a sample of the newest day. Raises `Refusal` if there is no Parquet file."""
    source = _find_source(uri)
    days = list_days(source)
    if not days:
        raise Refusal(f"expected Parquet files in {uri!r}, found none; check the address")
    table = _read_sample(source, days[-1])
    return Sample(source, days, table.num_rows, tuple(infer(table)))


def render(sample: Sample, output: Path) -> str:
    """The text of a spec with a comment for every guess. Raises `Refusal` without a feature."""
    columns, uri = sample.columns, sample.source.uri
    if not any(set(column.roles) & set(FEATURES) for column in columns):
        why = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:20])
        raise Refusal(f"expected a column that a detector could use, found none: {why}")
    name = _spec_name(output.stem)
    roles = {role for column in columns for role in column.roles}
    steps = any("sequence" in c.roles and c.why.startswith("lists: steps") for c in columns)
    detector, why = choose_detector(roles, of_numbers=steps)
    label = next((column.name for column in columns if "label" in column.roles), None)
    out = "out" if uri.strip("/") not in ("", ".") and not uri.startswith("out") else "../out"
    lines = [
        schema_line(output),
        f"# Written by `python -m jobs init` from {sample.rows:,} rows of",
        f"# {_printed(sample.days[-1])}, the newest of {len(sample.days)} day(s). The roles are",
        "# guesses: read them, then run `python -m jobs check` on this file.",
        "# docs/spec.md explains every key.",
        f"name: {name}",
        "input:",
        f"  uri: {_inline(uri)}",
        f"  partition: {_render_partition(sample.source)}",
        "columns:",
        *_columns(columns),
        f"detector: {{name: {detector}}}  # {why}",
        "training:",
        "  days: null  # all but the newest",
    ]
    if label:
        normal = json.dumps(f"{label} == 0")
        lines.append(f"  # filter: {normal}  # learn from normal rows only")
    lines += [
        "threshold: {policy: quantile, contamination: 0.001}  # 1 flag in 1,000 rows",
        f"output: {{uri: {_inline(f'{out}/{name}')}}}",
    ]
    return "\n".join(lines) + "\n"


def _columns(columns: Sequence[Inferred]) -> list[str]:
    names = [_inline(column.name) for column in columns]
    width = min(32, max(map(len, names)))
    lines = []
    for name, column in zip(names, columns, strict=True):
        roles = column.roles or ("keep",)
        role = roles[0] if len(roles) == 1 else f"[{', '.join(roles)}]"
        options = "".join(f", {key}: {_option(value)}" for key, value in column.options.items())
        entry = f"{f'{name}:':{width + 1}} {{role: {role}{options}}}"
        out = "" if column.roles else "# "
        lines.append(f"  {out}{entry}  # {_printed(column.why)}")
    return lines


def _option(value: object) -> str:
    return _inline(value) if isinstance(value, str) else json.dumps(value)


def _printed(text: str) -> str:
    """Text for a comment, which a line break in a name would end."""
    return text if text.isprintable() else ascii(text)


def _inline(text: str) -> str:
    """A string as a YAML value: quoted unless it is a plain name or path."""
    plain = WHOLE_NAME.fullmatch(text.replace("/", "_")) and text.lower() not in YAML_WORDS
    # Escape what cannot be printed: YAML also ends a line at U+0085 and U+2028.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _spec_name(text: str) -> str:
    """Text with only the characters that the name of a watch may have."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", text)
    return name if name[:1].isalpha() else f"watch_{name}"


def _find_source(uri: str) -> Source:
    """The data with the layout that its folders suggest."""
    if uri.endswith(".parquet"):  # one file, or a folder of that name
        return Source(uri)
    found = propose_partition(uri)
    return Source(uri, tuple(found) if isinstance(found, list) else found)


def _render_partition(source: Source) -> str:
    match source.partition:
        case None:
            return "null  # one day, named all"
        case str(key):
            return _inline(key)
        case keys:
            return f"[{', '.join(map(_inline, keys))}]"


def _read_sample(source: Source, day: str) -> pa.Table:
    """At most `MOST_ROWS` rows, spread evenly over the first files of the day."""
    taken = take_snapshot(source, day)
    if not taken.files:
        reasons = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected[:5])
        raise Refusal(
            f"expected a readable Parquet file in {day} of {source.uri!r}: {reasons or 'none'}"
        )
    refuse(check_names(dict.fromkeys(taken.schema.names), taken.schema))
    drifts = find_drift(taken.files, taken.schema.names)
    refuse([str(drift) for drift in drifts if drift.found is not None])
    store = open_store(taken.uri)
    files = taken.files[:MOST_FILES]
    batches = []
    for file in files:
        left = MOST_ROWS // len(files)
        size = sum(group.bytes for group in file.row_groups)
        batch_rows = limits.batch_rows(SAMPLE_BATCH, file.rows, size)
        with limits.open_parquet(store.open_parquet(file.key, file.version)) as parquet:
            for batch in parquet.iter_batches(batch_rows):
                folders = list_columns(file.path, source.layout)
                named = add_columns(batch.slice(0, left), folders)
                batches.append(_conform(named, taken.schema))
                left -= len(batches[-1])
                if left <= 0:
                    break
    if not batches:
        raise Refusal(
            f"expected rows in {day} of {source.uri!r}, found {len(files)} files without any"
        )
    return pa.Table.from_batches(batches)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows of one file in the types that all files have in common."""
    there = set(batch.schema.names)
    columns = [
        cast_exactly(to_storage_array(batch.column(field.name)), field.type).values
        if field.name in there
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.record_batch(columns, schema=schema)
