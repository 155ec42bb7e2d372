"""A first spec, written from a look at the data: every role with the reason for it."""

import json
import re

import pyarrow as pa

from cluster.lake.input import limits
from cluster.lake.input.arrow_types import to_storage_array
from cluster.lake.input.partitions import list_days
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.storage.opening import open_store
from jobs.inference.roles import Inferred, infer
from jobs.spec.columns import FEATURES
from models.refusal import Refusal

MOST_ROWS = 50_000  # looked at; 20,000 already tells a port from a counter, and reading is cheap
MOST_FILES = 4
SAMPLE_BATCH = 8_192

WHOLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
YAML_WORDS = {"true", "false", "null"}


def init(uri: str, name: str | None = None, partition: str | None = None) -> str:
    """The text of a spec for the data at `uri`, named `name` or after the last folder.

    The partition key is taken from the first folder `key=value`, unless given. Raises `Refusal`
    where there is no Parquet file, or no column that a detector could use.
    """
    partition = partition or _partition(uri)
    days = list_days(uri, partition)
    if not days:
        raise Refusal(f"expected Parquet files in {uri!r}, found none; check the address")
    table = _sample(uri, partition, days[-1])
    return render(uri, name or uri, partition, days, table.num_rows, infer(table))


def render(
    uri: str,
    name: str,
    partition: str | None,
    days: tuple[str, ...],
    rows: int,
    columns: list[Inferred],
) -> str:
    """The text of a spec, with a comment for every guess. Raises `Refusal` without a feature."""
    if not any(set(column.roles) & set(FEATURES) for column in columns):
        why = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:20])
        raise Refusal(f"expected a column that a detector could use, found none: {why}")
    name = _spec_name(name)
    label = next((column.name for column in columns if "label" in column.roles), None)
    out = "out" if uri.strip("/") not in ("", ".") and not uri.startswith("out") else "../out"
    lines = [
        f"# Written by `python -m jobs init` from {rows:,} rows of {_printed(days[-1])},",
        f"# the newest of {len(days)} day(s). The roles are guesses: read them once, then run",
        "# `python -m jobs check` on this file.",
        f"name: {name}",
        "input:",
        f"  uri: {_inline(uri)}",
        f"  partition: {_inline(partition) if partition else 'null  # one day, named all'}",
        "columns:",
        *_columns(columns),
        "detector: {name: autoencoder}",
        "training:",
        "  days: null  # all but the newest",
    ]
    if label:
        normal = json.dumps(f"{label} == 0")
        lines.append(f"  # filter: {normal}  # learn from rows that are known to be normal only")
    lines += [
        "threshold: {policy: quantile, contamination: 0.001}  # 1 flag in 1,000 rows",
        f"output: {{uri: {_inline(f'{out}/{name}')}}}",
    ]
    return "\n".join(lines) + "\n"


def _columns(columns: list[Inferred]) -> list[str]:
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
    """For a comment, which a line end in a day's or a field's name would end."""
    return text if text.isprintable() else ascii(text)


def _inline(text: str) -> str:
    """A string as YAML reads it back; quoted unless it is a plain name or path."""
    plain = WHOLE_NAME.fullmatch(text.replace("/", "_")) and text.lower() not in YAML_WORDS
    # What does not print is escaped: YAML ends a line, and so a comment, at U+0085 and U+2028 too.
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _spec_name(text: str) -> str:
    """The last part of a path, made of what a name may have."""
    last = [part for part in re.split(r"[/\\]", text) if part.strip(".")][-1:] or ["watch"]
    stem = re.sub(r"\.parquet$", "", last[0])
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem)
    return name if name[:1].isalpha() else f"watch_{name}"


def _partition(uri: str) -> str | None:
    """The key of the first folder `key=value`."""
    if uri.endswith(".parquet"):  # one file, or one folder written as if it were one
        return None
    for folder in open_store(uri).folders():
        key, equals, _ = folder.partition("=")
        if equals and not key.startswith((".", "_")):
            return str(key)
    return None


def _sample(uri: str, partition: str | None, day: str) -> pa.Table:
    """Rows of the day's first files, at most `MOST_ROWS`, spread evenly over the files."""
    taken = take_snapshot(uri, partition, day)
    if not taken.files:
        reasons = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected[:5])
        raise Refusal(f"expected a readable Parquet file in {day} of {uri!r}: {reasons or 'none'}")
    store = open_store(taken.uri)
    files = taken.files[:MOST_FILES]
    batches = []
    for file in files:
        left = MOST_ROWS // len(files)
        size = sum(group.bytes for group in file.row_groups)
        batch_rows = limits.batch_rows(SAMPLE_BATCH, file.rows, size)
        with limits.open_parquet(store.open_parquet(file.key, file.version)) as parquet:
            for batch in parquet.iter_batches(batch_rows):
                arrays = [to_storage_array(column) for column in batch.slice(0, left).columns]
                batches.append(pa.record_batch(arrays, batch.schema.names))
                left -= len(batches[-1])
                if left <= 0:
                    break
    if not batches:
        raise Refusal(f"expected rows in {day} of {uri!r}, found {len(files)} files without any")
    return pa.concat_tables(
        [pa.Table.from_batches([batch]) for batch in batches], promote_options="permissive"
    )
