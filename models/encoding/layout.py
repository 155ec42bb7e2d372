"""The raw inputs and the layout that an encoder makes from its columns."""

import math

from models.columns import (
    Boolean,
    Categorical,
    FeatureColumn,
    Image,
    IPAddress,
    Numeric,
    Port,
    SignalColumn,
    Timestamp,
    Video,
)
from models.decoding.scalars import PORT_CLASSES
from models.encoding.signals import LearnedInputs
from models.layout import CategoryInput, Layout, NumericInput
from models.schema import Source

SPECIAL = 2  # codes before those of the vocabulary: 0 is "other", 1 is null
PIXELS = (Image, Video)  # columns with raw values of uint8


def choose_embedding_width(size: int) -> int:
    """The width of an embedding: fast.ai's rule, 1.6 size^0.56 (Howard & Gugger 2020), at most 16.

    A wider embedding would outweigh the numbers beside it.
    """
    return min(16, round(1.6 * math.pow(size, 0.56)))


def sort_by_source(
    sources: tuple[Source, ...], learned: dict[str, LearnedInputs]
) -> dict[str, LearnedInputs]:
    """The learned inputs in the order of the sources."""
    names = [source.column.name for source in sources]
    return {name: learned[name] for name in names if name in learned}


def make_layout(
    sources: tuple[Source, ...],
    vocabularies: dict[str, tuple[str, ...]],
    learned: dict[str, LearnedInputs],
) -> tuple[tuple[NumericInput, ...], Layout]:
    """The raw inputs, and the layout of the encoded rows."""
    raw: list[NumericInput] = []
    nulls: list[NumericInput] = []
    categories: list[CategoryInput] = []
    for source in sources:
        column = source.column
        if not source.feature:
            continue
        if isinstance(column, SignalColumn):
            if source.nullable:
                raw.append(NumericInput(f"{column.name} is null", "binary"))
            continue
        inputs = list_raw_inputs(column, source.signature)
        raw.extend(inputs)
        if inputs and source.nullable:
            nulls.append(NumericInput(f"{column.name} is null", "binary"))
        if column.name in vocabularies:
            size = len(vocabularies[column.name]) + SPECIAL
            embedded = isinstance(column, Categorical) and column.encoding == "embedding"
            width = choose_embedding_width(size) if embedded else 0
            categories.append(CategoryInput(column.name, size, width))
    signals = tuple(found.signal for found in learned.values() if found.signal)
    tokens = tuple(found.tokens for found in learned.values() if found.tokens)
    return tuple(raw), Layout((*raw, *nulls), tuple(categories), signals, tokens)


def find_pixels(
    sources: tuple[Source, ...], raw: tuple[NumericInput, ...], learned: dict[str, LearnedInputs]
) -> list[tuple[bool, int | None]]:
    """For each signal: is it pixels, and the index of the raw input that says that it is null.

    Only pixels need that input, because other signals are NaN where they are null.
    """
    places = {given.name: i for i, given in enumerate(raw)}
    kinds = {source.column.name: isinstance(source.column, PIXELS) for source in sources}
    return [
        (kinds[name], places.get(f"{name} is null") if kinds[name] else None)
        for name, found in learned.items()
        if found.signal
    ]


def list_raw_inputs(column: FeatureColumn, signature: str) -> tuple[NumericInput, ...]:
    """The names and kinds of `Cells.inputs`, in the same order."""
    name = column.name
    match column:
        case Numeric():
            return (NumericInput(name, "real"),)
        case Boolean():
            return (NumericInput(name, "binary"),)
        case Categorical():
            return ()
        case Port():
            return tuple(NumericInput(f"{name} is {kind}", "binary") for kind, _, _ in PORT_CLASSES)
        case Timestamp():
            parts = ["weekday"] if signature == "date" else ["hour", "weekday"]
            return tuple(
                NumericInput(f"{part} of {name} ({wave})", "real")
                for part in parts
                for wave in ("sin", "cos")
            )
        case IPAddress():
            kinds = [f"{name} is {kind}" for kind in ("private", "multicast", "reserved")]
            if column.same_network_as:
                kinds.append(f"{name} in the network of {column.same_network_as}")
            return tuple(NumericInput(kind, "binary") for kind in kinds)
        case _:
            return ()
