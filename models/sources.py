"""The input columns that an encoder reads: what their types must be, now and when scoring."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from rapidfuzz import process

from models.columns import (
    Boolean,
    Categorical,
    FeatureColumn,
    IPAddress,
    Numeric,
    Port,
    Timestamp,
)
from models.refusal import Refusal, SchemaMismatch

USABLE: dict[type[FeatureColumn], str] = {
    Numeric: "a number (integer, float, decimal or boolean)",
    Categorical: "text, an integer or a boolean",
    Boolean: "a boolean, or integers 0 and 1",
    IPAddress: "text",
    Port: "an integer",
    Timestamp: "a timestamp or a date32",
}
KINDS = {kind.__name__: kind for kind in USABLE}
NEAREST = 60  # rapidfuzz ratio, 0 to 100: below it, a suggestion is noise ("ts" for "dst_port")
LISTED = 24  # column names in a message; a wide table would fill the terminal


@dataclass(frozen=True)
class Source:
    """One input column: how it is used, and what it looked like in training."""

    column: FeatureColumn
    signature: str  # what may not change: "number", "text", "timestamp[us] without a zone", …
    type: str  # the Arrow type, for messages
    feature: bool = True  # False: read only because a feature refers to it
    nullable: bool = False  # nulls occurred in training

    def to_document(self) -> dict[str, Any]:
        document = asdict(self)
        document["column"] = column_to_document(self.column)
        return document

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "Source":
        return cls(**{**document, "column": column_from_document(document["column"])})


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


def signature(column: FeatureColumn, data_type: pa.DataType) -> str | None:
    """What must stay the same about a column's type from training on; None when unusable."""
    t = pa.types
    value = data_type.value_type if t.is_dictionary(data_type) else data_type
    text = t.is_string(value) or t.is_large_string(value) or t.is_string_view(value)
    whole = t.is_integer(value)
    number = whole or t.is_floating(value) or t.is_decimal128(value) or t.is_decimal256(value)
    match column:
        case Numeric():
            return "number" if number or t.is_boolean(value) else None
        case Boolean():
            return "boolean" if whole or t.is_boolean(value) else None
        case IPAddress():
            return "text" if text else None
        case Port():  # floats: pandas writes integers with nulls as doubles
            return "integer" if whole or t.is_floating(value) else None
        case Categorical():
            named = {"text": text, "integer": whole, "boolean": t.is_boolean(value)}
            return next((name for name, fits in named.items() if fits), None)
        case Timestamp():
            if t.is_timestamp(value):
                zone = "without a zone" if value.tz is None else "with a zone"
                return f"timestamp[{value.unit}] {zone}"
            return "date" if t.is_date32(value) else None


def find_sources(columns: tuple[FeatureColumn, ...], schema: pa.Schema) -> tuple[Source, ...]:
    """The columns to read for these features: each once, features first.

    Raises `Refusal` for columns named twice, `SchemaMismatch` for missing, duplicate or
    unusable ones.
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
    refuse(missing_or_doubled((column.name for column in wanted), schema))
    sources, messages = [], []
    for column in wanted:
        data_type = schema.field(column.name).type
        found_signature = signature(column, data_type)
        if found_signature is None:
            messages.append(
                f"column '{column.name}': expected {USABLE[type(column)]}, found {data_type}; "
                "cast it in the input, or give the column another kind in the spec"
            )
        else:
            feature = column.name in names
            sources.append(Source(column, found_signature, str(data_type), feature))
    refuse(messages)
    return tuple(sources)


def compare(sources: tuple[Source, ...], schema: pa.Schema) -> None:
    """Raises `SchemaMismatch` unless `schema` has each source with the type of training.

    Extra and reordered columns are fine; so is another width of the same family of types
    (int32 for int64, large_string for string, dictionary-encoded or not).
    """
    refuse(missing_or_doubled((source.column.name for source in sources), schema))
    messages = []
    for source in sources:
        name = source.column.name
        data_type = schema.field(name).type
        found = signature(source.column, data_type)
        if found != source.signature:
            messages.append(
                f"column '{name}': expected {source.signature} ({source.type} in training), "
                f"found {found or 'an unusable type'} ({data_type}); "
                "cast it in the input, or train again on the new type"
            )
    refuse(messages)


def missing_or_doubled(wanted: Iterable[str], schema: pa.Schema) -> list[str]:
    """One message for each wanted column that is not in the schema exactly once."""
    counts = Counter(schema.names)
    messages = []
    for name in wanted:
        if counts[name] > 1:
            messages.append(
                f"column '{name}': expected once, found {counts[name]} columns of that name; "
                "rename or drop all but one in the input"
            )
        elif not counts[name]:
            near = process.extract(name, list(counts), limit=2, score_cutoff=NEAREST)
            hint = " or ".join(f"'{match}'" for match, _, _ in near)
            listed = ", ".join(schema.names[:LISTED]) + (", …" if len(schema) > LISTED else "")
            messages.append(
                f"column '{name}' is not in the input{f'; did you mean {hint}?' if hint else '.'} "
                f"The input has {len(schema)} columns: {listed}"
            )
    return messages


def refuse(messages: list[str]) -> None:
    if messages:
        raise SchemaMismatch("\n".join(messages))
