"""The input columns that an encoder reads, and the types that training and scoring must have."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from models.columns import (
    Audio,
    Boolean,
    Categorical,
    FeatureColumn,
    Image,
    IPAddress,
    Numeric,
    Port,
    Sequence,
    Text,
    Timestamp,
    Vector,
    Video,
)
from models.refusal import Refusal, SchemaMismatch
from models.suggestion import join_names, suggest

# The Arrow types that each kind of column can have.
USABLE: dict[type[FeatureColumn], str] = {
    Numeric: "a number (integer, float, decimal or boolean)",
    Categorical: "text, a whole number or a boolean",
    Boolean: "a boolean, or the numbers 0 and 1",
    IPAddress: "text",
    Port: "a whole number",
    Timestamp: "a timestamp, a date32, text in ISO 8601, or a number with a unit (s, ms, us or ns)",
    Vector: "a list of numbers",
    Sequence: "a list of text, integers, booleans, numbers, or of equally long lists of numbers",
    Image: "binary (the bytes of a PNG, JPEG or WebP file)",
    Audio: "binary (the bytes of a WAV or FLAC file)",
    Text: "text",
    Video: "a list of binary (the bytes of PNG, JPEG or WebP files)",
}
KINDS = {kind.__name__: kind for kind in USABLE}
# Signature of a series whose type does not give the numbers per step: training learns the number.
UNEVEN = "steps of equally long lists"


_TYPES = {
    "text": pa.string(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "timestamp without a zone": pa.timestamp("us"),
    "timestamp with a zone": pa.timestamp("us", "UTC"),
}


@dataclass(frozen=True)
class Source:
    """One input column: its use, and its type and nulls in training."""

    column: FeatureColumn
    signature: str  # must not change: "number", "text", "timestamp without a zone", …
    type: str  # the Arrow type, for messages
    feature: bool = True  # False if it is read only because a feature refers to it
    nullable: bool = False  # nulls occurred in training
    channels: tuple[str, ...] = ()  # names of a series' channels, if the schema has them
    list_size: int | None = None  # set if the list has a fixed size

    @property
    def has_events(self) -> bool:
        """Whether this is a sequence of events, not of numbers."""
        return self.signature.startswith("events")

    def to_document(self) -> dict[str, Any]:
        document = asdict(self)
        document["column"] = column_to_document(self.column)
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Source":
        column = column_from_document(document["column"])
        channels = tuple(document["channels"])
        return cls(**{**document, "column": column, "channels": channels})


def column_to_document(column: FeatureColumn) -> dict[str, Any]:
    """A JSON object that `column_from_document` reads back."""
    return {"kind": type(column).__name__, **asdict(column)}


def column_from_document(document: dict[str, Any]) -> FeatureColumn:
    kind = document.get("kind")
    if kind not in KINDS:
        raise Refusal(
            f"unknown kind of column {kind!r}; expected one of {', '.join(KINDS)}. "
            "Open the bundle with the version that wrote it, or train again."
        )
    return KINDS[kind](**{key: value for key, value in document.items() if key != "kind"})


def find_signature(column: FeatureColumn, data_type: pa.DataType) -> str | None:
    """The part of a column's type that must not change after training; None for unusable types.

    >>> find_signature(Numeric("bytes"), pa.int32())
    'number'
    >>> find_signature(Timestamp("ts"), pa.timestamp("us"))
    'timestamp without a zone'
    """
    t = pa.types
    value = data_type.value_type if t.is_dictionary(data_type) else data_type
    text = t.is_string(value) or t.is_large_string(value) or t.is_string_view(value)
    whole = t.is_integer(value)
    number = whole or t.is_floating(value) or t.is_decimal(value)
    # Whole numbers in other types: pandas writes integers with nulls as floats, and the integers of
    # Oracle and Snowflake are decimals.
    countable = number and not (t.is_decimal(value) and value.scale)
    match column:
        case Numeric():
            return "number" if number or t.is_boolean(value) else None
        case Boolean():
            return "boolean" if countable or t.is_boolean(value) else None
        case IPAddress():
            return "text" if text else None
        case Port():
            return "integer" if countable else None
        case Categorical():
            named = {"text": text, "integer": countable, "boolean": t.is_boolean(value)}
            return next((name for name, fits in named.items() if fits), None)
        case Timestamp():
            if t.is_timestamp(value):
                return f"timestamp {'without' if value.tz is None else 'with'} a zone"
            if number:
                return f"{column.unit} since 1970" if column.unit else None
            return "text" if text else "date" if t.is_date32(value) else None
        case Text():
            return "text" if text else None
        case Image() | Audio():
            return "bytes" if _is_binary(value) else None
        case Vector():
            return "list of numbers" if _is_list(value) and _is_number(value.value_type) else None
        case Video():
            return "list of bytes" if _is_list(value) and _is_binary(value.value_type) else None
        case Sequence():
            return _find_sequence_signature(value)


def _find_sequence_signature(kind: pa.DataType) -> str | None:
    """Integers and booleans are events. Numbers of a series are floats or decimals."""
    if not _is_list(kind):
        return None
    step = kind.value_type
    if _is_fixed(step):
        number = _is_number(step.value_type)
        return f"steps of {step.list_size} numbers" if number and step.list_size else None
    if _is_list(step):  # Spark writes such lists
        return UNEVEN if _is_number(step.value_type) else None
    if pa.types.is_floating(step) or pa.types.is_decimal(step):
        return "steps of 1 numbers"
    events = find_signature(Categorical(""), step)
    return f"events of {events}" if events else None


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_list(kind) or t.is_large_list(kind) or _is_fixed(kind))


def _is_fixed(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return find_signature(Numeric(""), kind) is not None and not pa.types.is_boolean(kind)


def _is_binary(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind))


def find_sources(columns: tuple[FeatureColumn, ...], schema: pa.Schema) -> tuple[Source, ...]:
    """The columns to read for the features, each once, features first.

    Raises Refusal if a feature is named twice, and SchemaMismatch if a column is missing from the
    schema, is there twice or has an unusable type.
    """
    names = [column.name for column in columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not columns or twice:
        found = f"{', '.join(map(repr, twice))} more than once" if twice else "none"
        raise Refusal(f"expected feature columns, each once; found {found}. Correct the spec.")
    referred = dict.fromkeys(
        column.same_network_as
        for column in columns
        if isinstance(column, IPAddress) and column.same_network_as
    )
    extra = [IPAddress(name) for name in referred if name not in names]
    wanted: tuple[FeatureColumn, ...] = (*columns, *extra)
    refuse(check_names((column.name for column in wanted), schema))
    sources, messages = [], []
    for column in wanted:
        data_type = schema.field(column.name).type
        found_signature = find_signature(column, data_type)
        if found_signature is None:
            messages.append(
                f"column '{column.name}': expected {USABLE[type(column)]}, found {data_type}; "
                "cast it in the input, or give the column another kind in the spec"
            )
        else:
            sources.append(
                Source(
                    column,
                    found_signature,
                    str(data_type),
                    column.name in names,
                    channels=_read_channels(schema.field(column.name)),
                    list_size=data_type.list_size if _is_fixed(data_type) else None,
                )
            )
    refuse(messages)
    return tuple(sources)


def _read_channels(field: pa.Field) -> tuple[str, ...]:
    """The names in the field's metadata `channels`, a JSON list.

    Other programs may use the same key, so anything else counts as no names.
    """
    try:
        names = json.loads((field.metadata or {}).get(b"channels", b"[]"))
    except (ValueError, RecursionError):
        return ()
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return tuple(names)
    return ()


def check_types(sources: tuple[Source, ...], schema: pa.Schema) -> None:
    """Raise SchemaMismatch unless `schema` has each source with the type of training.

    Columns may be reordered or added. A type may have another width or encoding: int32 for int64,
    large_string for string, dictionary-encoded or not. It may be null, where every value is.
    """
    refuse(check_names((source.column.name for source in sources), schema))
    messages = []
    for source in sources:
        name = source.column.name
        data_type = schema.field(name).type
        found = find_signature(source.column, data_type)
        if found != source.signature and not pa.types.is_null(data_type):
            messages.append(
                f"column '{name}': expected {source.signature} ({source.type} in training), "
                f"found {found or 'an unusable type'} ({data_type}); "
                "cast it in the input, or train again on the new type"
            )
    refuse(messages)


def fill_untyped(batch: pa.RecordBatch, sources: Iterable[Source]) -> pa.RecordBatch:
    """The batch with columns of type null, which have no values, in a type of training."""
    for source in sources:
        place = batch.schema.get_field_index(source.column.name)
        if place >= 0 and pa.types.is_null(batch.schema.field(place).type):
            nulls = pa.nulls(batch.num_rows, _find_type(source.signature))
            batch = batch.set_column(place, source.column.name, nulls)
    return batch


def _find_type(signature: str) -> pa.DataType:
    """One of the types that have this signature."""
    kind, _, inner = signature.partition(" of ")
    match kind:
        case "events":
            return pa.list_(_find_type(inner))
        case "list":
            return pa.list_(pa.binary() if inner == "bytes" else pa.float64())
        case "steps":
            count = inner.removesuffix(" numbers")
            if count == "1":
                return pa.list_(pa.float64())
            size = int(count) if count.isdigit() else -1
            return pa.list_(pa.list_(pa.float64(), size))
    return _TYPES.get(signature, pa.float64())


def check_names(wanted: Iterable[str], schema: pa.Schema) -> list[str]:
    """Messages about the wanted columns that are not in the schema exactly once."""
    counts = Counter(schema.names)
    messages = []
    for name in wanted:
        if counts[name] > 1:
            messages.append(
                f"column '{name}': expected once, found {counts[name]} columns of that name; "
                "rename or drop all but one in the input"
            )
        elif not counts[name]:
            messages.append(
                f"column '{name}' is not in the input{suggest(name, counts) or '.'} "
                f"The input has {len(schema)} columns: {join_names(schema.names)}"
            )
    return messages


def refuse(messages: list[str]) -> None:
    if messages:
        raise SchemaMismatch("\n".join(messages))
