"""Writes a first spec from a sample of the data: every column with a role and the reason."""

import json
import keyword
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa

from cluster.lake.days import to_date
from cluster.lake.input import limits
from cluster.lake.input.arrow_types import to_storage_array
from cluster.lake.input.file_types import find_drift
from cluster.lake.input.folder_columns import add_columns
from cluster.lake.input.input_file import InputFile
from cluster.lake.input.layout import list_columns
from cluster.lake.input.partitions import Source, list_days, propose_partition
from cluster.lake.input.snapshot import Snapshot, list_days_with_rows, take_snapshot
from cluster.lake.input.struct_columns import is_struct, list_struct_fields, take_struct_fields
from cluster.lake.input.unreadable import UnreadableFile, content_errors
from cluster.lake.storage.opening import open_store
from cluster.lake.types.casting import cast_exactly
from jobs.inference.detector import choose_detector
from jobs.inference.roles import Inferred, infer
from jobs.inference.time_split import TimeSplit, propose_split
from jobs.input_rows import describe_empty
from jobs.spec.columns import FEATURES
from jobs.spec.reference import schema_line
from jobs.spec.sections import Gates
from models.refusal import Refusal
from models.schema import check_names, refuse

MOST_ROWS = 50_000  # a sample: 20,000 rows already distinguish a port from a counter
MOST_FILES = 4
SAMPLE_BATCH = 8_192
# From this share of anomalies on, only normal rows are learned from (docs/decisions/first-spec.md).
MANY = 0.05

TRAIN, TEST = "train", "test"
WHOLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
YAML_WORDS = {"true", "false", "null"}


@dataclass(frozen=True)
class Sample:
    """What a sample of the newest day with rows shows of the data at `uri`."""

    source: Source
    days: tuple[str, ...]
    rows: int
    columns: tuple[Inferred, ...]
    training: str | None = None  # where the training rows are, if apart
    labelled: bool = True  # whether the training rows have the columns of the sample
    split: TimeSplit | None = None  # of the one day, to learn from its earlier rows
    empty: tuple[str, ...] = ()  # days after the newest with rows, which are not among `days`

    @property
    def day(self) -> str:
        """The day that was read: the one of training by its name, else the newest."""
        return TRAIN if TRAIN in self.days else self.days[-1]

    @property
    def place(self) -> str:
        if len(self.days) == 1:
            return "the only day"
        return f"{'one' if self.day == TRAIN else 'the newest'} of {len(self.days)} days"


def init(uri: str, output: Path) -> str:
    """The text of a spec for the data at `uri`, to be written to `output`.

    Raises `Refusal` if there is no Parquet file, or no column that a detector could use.
    """
    return render(look(uri), output)


def look(uri: str) -> Sample:
    """Read a sample of the newest day with rows. Raises `Refusal` if there is no Parquet file."""
    apart = _find_train_and_test(uri)
    source = _find_source(apart[1] if apart else uri)
    days = list_days(source)
    if not days:
        raise Refusal(f"expected Parquet files in {uri!r}, found none; check the address")
    days, empty = (days, ()) if TRAIN in days else _leave_out_empty(source, days)
    taken = take_snapshot(source, TRAIN if TRAIN in days else days[-1])
    table = _read_sample(source, taken)
    dated = sum(to_date(day) is not None for day in days)
    lacking = _list_lacking(taken)
    columns = (*infer(table, training_days=dated - 1), *lacking)
    time = next((one for one in columns if "time" in one.roles), None)
    split = None
    if time and not apart and len(days) == 1 and not any(one.learned for one in columns):
        split = propose_split(taken, time.name, time.options.get("unit"), time.steps)
    rows, training = table.num_rows, apart[0] if apart else None
    labelled = _has_label(columns, training)
    return Sample(source, days, rows, columns, training, labelled, split, empty)


def _leave_out_empty(
    source: Source, days: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The days up to the newest with rows, or that day alone if no other has rows; and the days
    after it."""
    filled = tuple(islice(list_days_with_rows(source, days), 2))
    if not filled:
        return days, ()  # the reader says why
    after = days.index(filled[0]) + 1
    return (filled if len(filled) == 1 else days[:after]), days[after:]


def _has_label(columns: Sequence[Inferred], training: str | None) -> bool:
    """Whether the rows at the place of training, if they are apart, have the label too."""
    label = _find_label(columns)
    if training is None or label is None:
        return True
    source = _find_source(training)
    days = list_days(source)
    day = next(list_days_with_rows(source, days), None)
    return day is not None and label.name in take_snapshot(source, day).schema.names


def _find_label(columns: Sequence[Inferred]) -> Inferred | None:
    return next((column for column in columns if "label" in column.roles), None)


def render(sample: Sample, output: Path) -> str:
    """The text of a spec with a comment for every guess. Raises `Refusal` without a feature."""
    columns, uri = sample.columns, sample.source.uri
    if not any(set(column.roles) & set(FEATURES) for column in columns):
        why = "; ".join(f"{column.name!r}: {column.why}" for column in columns[:20])
        raise Refusal(f"expected a column that a detector could use, found none: {why}")
    name = _spec_name(output.stem)
    roles = {role for column in columns for role in column.roles}
    steps = any("sequence" in c.roles and c.why.startswith("lists: steps") for c in columns)
    training = _training(sample)
    normal = any(line.startswith("  filter:") and "label" in roles for line in training)
    detector, why = choose_detector(roles, of_numbers=steps, normal=normal)
    out = "out" if uri.strip("/") not in ("", ".") and not uri.startswith("out") else "../out"
    lines = [
        schema_line(output),
        f"# Written by `python -m jobs init` from {sample.rows:,} rows of",
        f"# {_printed(sample.day)}, {sample.place}. The roles are",
        "# guesses: read them, then run `python -m jobs check` on this file.",
        "# docs/spec.md explains every key.",
        *(f"# {_printed(text)}." for text in describe_empty(sample.day, sample.empty)),
        f"name: {name}",
        "input:",
        f"  uri: {_inline(uri)}",
        f"  partition: {_render_partition(sample.source)}",
        "columns:",
        *_columns(columns),
        *_window(columns),
        f"detector: {{name: {detector}}}  # {why}",
        *training,
        "threshold: {policy: quantile, contamination: 0.001}  # 1 flag in 1,000 rows",
        f"output: {{uri: {_inline(f'{out}/{name}')}}}",
        *_gates(columns),
    ]
    return "\n".join(lines) + "\n"


def _window(columns: Sequence[Inferred]) -> list[str]:
    """A proposal for rows that look like series: a time, and numbers of a machine or of several."""
    roles = {role for column in columns for role in column.roles}
    entity = next((column.name for column in columns if "entity" in column.roles), None)
    features = {role for c in columns if "entity" not in c.roles for role in c.roles}
    if "time" not in roles or "id" in roles or "numeric" not in roles:
        return []
    if features & set(FEATURES) - {"numeric", "boolean", "timestamp"}:
        return []
    of = f"entity: {_inline(entity)}, " if entity else ""
    whose = f" of its {_printed(entity)}" if entity else ""
    return [
        f"# window: {{{of}length: 16, horizon: 1d}}  # for detectors of series, such as pca:",
        f"#   adds the last 16 rows{whose} to each row",
    ]


def _training(sample: Sample) -> list[str]:
    """Which rows to learn from: never silently the ones that are scored."""
    label = _find_label(sample.columns)
    normal = f"filter: {json.dumps(_keep_normal(label), ensure_ascii=False)}" if label else ""
    lines = ["training:"]
    if sample.training:
        lines.append(f"  uri: {_inline(sample.training)}  # by its name; input.uri has the test")
    elif sample.day == TRAIN:
        lines.append(f"  days: {TRAIN}  # by its name")
    elif len(sample.days) > 1:
        lines.append("  days: null  # all but the newest")
    elif division := next((one for one in sample.columns if one.learned), None):
        text = f"{_name_in_filter(division.name)} == {division.learned!r}"
        if label:
            text = f"{text} and {_keep_normal(label)}"
        return [*lines, f"  filter: {json.dumps(text, ensure_ascii=False)}  # by its name"]
    elif sample.split:
        return [*lines, *_learn_earlier(sample.split, label)]
    elif label:
        return [*lines, f"  {normal}  # learn from normal rows only: there is one day"]
    else:
        lines += [
            "  days: null  # there is one day: it is learned from and scored, anomalies included.",
            "  # uri: path/to/earlier/rows  # better: rows of another time, or without anomalies",
        ]
    if label and label.anomalies > MANY and sample.labelled:
        share = f"{label.anomalies:.0%} of the sample are anomalies"
        lines.append(f"  {normal}  # learn from normal rows only: {share}")
    elif label:
        lines.append(f"  # {normal}  # learn from normal rows only")
    return lines


def _gates(columns: Sequence[Inferred]) -> list[str]:
    """A wider gate for flags, where anomalies are as many as it stops by default."""
    label, most = _find_label(columns), Gates().flag_rate[1]
    wanted = round(min(1.0, 2 * label.anomalies), 2) if label else 0.0
    if wanted <= most:
        return []
    return [f"gates: {{flag_rate: [0.0, {wanted}]}}  # twice the anomalies of the sample"]


def _learn_earlier(split: TimeSplit, label: Inferred | None) -> list[str]:
    """The training filter for the earlier rows of one day, and for the normal ones of them."""
    text = f"{_name_in_filter(split.column)} < {split.moment!r}"
    if label:
        text = f"{text} and {_keep_normal(label)}"
    learned = f"the earlier {split.share:.0%} of its rows{', if normal,' if label else ''}"
    return [
        f"  # There is one day: {learned} are learned from. All rows are",
        "  # scored, the later ones unseen. Or name other rows to learn from: uri: path/to/rows",
        f"  filter: {json.dumps(text, ensure_ascii=False)}",
    ]


def _name_in_filter(name: str) -> str:
    plain = all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))
    return name if plain else f"column({name!r})"


def _keep_normal(label: Inferred) -> str:
    """The filter for the normal rows."""
    name = _name_in_filter(label.name)
    normal = label.options.get("normal")
    if normal:
        return f"{name} == {normal[0]!r}" if len(normal) == 1 else f"{name} in {tuple(normal)!r}"
    return f"{name} == False" if label.boolean else f"{name} == 0"


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


def _find_train_and_test(uri: str) -> tuple[str, str] | None:
    """The places of training and test rows, where two files or folders have these names."""
    if uri.endswith(".parquet"):
        return None
    found = open_store(uri).survey("", deep=False)
    names = [*found.folders, *(one.key for one in found.objects if one.key.endswith(".parquet"))]
    visible = [name for name in names if not name.startswith((".", "_"))]
    if len(visible) != 2:
        return None
    train, test = sorted(visible, key=lambda name: TRAIN not in name.lower())
    stems = [name.lower().removesuffix(".parquet") for name in (train, test)]
    if not stems[0].startswith(TRAIN) or not stems[1].startswith(TEST):
        return None
    return f"{uri.rstrip('/')}/{train}", f"{uri.rstrip('/')}/{test}"


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


def _list_lacking(taken: Snapshot) -> list[Inferred]:
    """The columns that some files of the day lack, which no spec may read."""
    drifts = find_drift(taken.files, taken.schema.names)
    lacking = Counter(drift.column for drift in drifts if drift.found is None)
    of = len(taken.files)
    return [
        Inferred(name, (), f"{count:,} of the {of:,} files of the day lack it")
        for name, count in lacking.items()
    ]


def _read_sample(source: Source, taken: Snapshot) -> pa.Table:
    """At most `MOST_ROWS` rows, spread evenly over the first files of the day."""
    day = taken.day
    if not taken.files:
        reasons = "; ".join(f"{file.key}: {file.message}" for file in taken.rejected[:5])
        raise Refusal(
            f"expected a readable Parquet file in {day} of {source.uri!r}: {reasons or 'none'}"
        )
    refuse(check_names(dict.fromkeys(taken.schema.names), taken.schema))
    # A struct is not proposed, but its fields are.
    lacking = {column.name for column in _list_lacking(taken)}
    schema = pa.schema([f for f in taken.schema if not is_struct(f.type) and f.name not in lacking])
    drifts = find_drift(taken.files, schema.names)
    repair = "store one type in all files, or take the column out of them"
    refuse([f"{drift}; {repair}" for drift in drifts if drift.found is not None])
    batches: list[pa.RecordBatch] = []
    damaged: list[str] = []
    read = 0
    for file in taken.files:
        if read == MOST_FILES:
            break
        try:
            batches += _read_file(source, taken, file, schema)
            read += 1
        except UnreadableFile as error:  # a night sets it aside
            damaged.append(" ".join(str(error).split()))
    if not batches:
        damaged += [file.message for file in taken.rejected]
        found = "; ".join(damaged[:5]) or f"{len(taken.files)} files without any"
        raise Refusal(f"expected rows in {day} of {source.uri!r}, found: {found}")
    return pa.Table.from_batches(batches)


def _read_file(
    source: Source, taken: Snapshot, file: InputFile, schema: pa.Schema
) -> list[pa.RecordBatch]:
    """The first rows of a file, in the types of `schema`. Raises `UnreadableFile` for damaged
    content."""
    store = open_store(taken.uri)
    left = MOST_ROWS // min(MOST_FILES, len(taken.files))
    size = sum(group.bytes for group in file.row_groups)
    batch_rows = limits.batch_rows(SAMPLE_BATCH, file.rows, size)
    batches = []
    with (
        content_errors(file.key),
        limits.open_parquet(store.open_parquet(file.key, file.version)) as parquet,
    ):
        fields = list_struct_fields(parquet.schema_arrow)
        for batch in parquet.iter_batches(batch_rows):
            folders = list_columns(file.path, source.layout)
            named = add_columns(take_struct_fields(batch.slice(0, left), fields), folders)
            batches.append(_conform(named, schema))
            left -= len(batches[-1])
            if left <= 0:
                break
    return batches


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
