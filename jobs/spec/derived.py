"""The sections of a spec that derive columns from other rows: `history` and `window`."""

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.history import Derived, History, columns, span
from cluster.lake.derived.windows import SHORT, WINDOW, Window
from jobs.spec.columns import ANSWERS, Column, Frozen, as_tuple, roles
from jobs.spec.errors import expected, problems
from jobs.spec.source import Key
from models.columns import Boolean, FeatureColumn, Numeric, Roles, Sequence
from models.suggestion import join_names, suggest


def _span(text: str) -> str:
    try:
        span(text)
    except ValueError:
        raise expected("minutes, hours or days, such as 30m, 12h or 7d") from None
    return text


Span = Annotated[str, AfterValidator(_span)]
Spans = Annotated[tuple[Span, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class HistoryEntry(Frozen):
    """Aggregates over the earlier rows of an entity: see `cluster.lake.derived.history`."""

    entity: str
    horizons: Spans = ("1d", "7d", "30d")
    of: str | None = None  # a number: its sum and mean, beside the count
    distinct: str | None = None  # a column: how many values of it
    delay: Span | None = None  # rows younger than this are not looked at
    labels: bool = False  # the share of anomalies among labelled rows, instead

    @model_validator(mode="after")
    def _fits(self) -> "HistoryEntry":
        found: list[tuple[Key, str]] = []
        if self.labels and self.delay is None:
            text = "labels arrive late; expected a delay after which they are known, such as 7d"
            found.append((("delay",), f"{text}, found none"))
        for key in ("of", "distinct"):
            if self.labels and getattr(self, key) is not None:
                text = "belongs to a history without labels; write a second entry for it"
                found.append(((key,), text))
        if found:
            raise problems(found)
        return self

    @property
    def history(self) -> History:
        return History(**self.model_dump())


class WindowSection(Frozen):
    """For each row the last rows of its entity: see `cluster.lake.derived.windows`."""

    entity: str
    length: Annotated[int, Field(ge=2, le=10_000)]  # rows, with the row itself
    horizon: Span = "1d"  # a window begins this long before its row at the earliest
    # Its channels are no features beside it: for detectors that know nothing but series.
    alone: bool = False

    def window(self, channels: tuple[str, ...]) -> Window:
        return Window(self.entity, self.length, channels, self.horizon)


Histories = Annotated[tuple[HistoryEntry, ...], BeforeValidator(as_tuple)]


def derivation(
    given: dict[str, Column],
    histories: tuple[HistoryEntry, ...],
    window: WindowSection | None,
    row_filter: str | None,
    training_filter: str | None,
) -> Derivation | None:
    """What a spec derives; None where it has neither a history nor a window."""
    if not histories and window is None:
        return None
    about = roles(given)
    assert about.time is not None  # see `wrong_derived`
    return Derivation(
        columns=tuple(given),
        time=about.time,
        label=about.label,
        filter=row_filter,
        also=training_filter,
        history=tuple(entry.history for entry in histories),
        window=window.window(_numeric(given)) if window else None,
    )


def features(
    given: tuple[FeatureColumn, ...], derivation: Derivation, window: WindowSection | None
) -> tuple[FeatureColumn, ...]:
    """The features of the columns, then the derived ones."""
    made = [*given, *(_feature(column) for column in derivation.derived)]
    if window is None or derivation.window is None:
        return tuple(made)
    series = Sequence(WINDOW, length=window.length)
    if not window.alone:
        return (*made, series, Boolean(SHORT))
    return (*(f for f in made if f.name not in derivation.window.channels), series)


def with_derived(given: Roles, derivation: Derivation) -> Roles:
    """The roles, with derived columns as sensitive as what they are derived from."""
    hidden = {c.name for c in derivation.derived if c.of in given.sensitive}
    pictured = given.pictured
    if derivation.window:
        if given.sensitive & set(derivation.window.channels):
            hidden.add(WINDOW)
        else:
            pictured = (*pictured, WINDOW)
    return replace(given, sensitive=given.sensitive | hidden, pictured=pictured)


def _feature(column: Derived) -> Numeric:
    # All but shares have a long tail: one customer pays once a month, another all day.
    return Numeric(column.name, log1p=column.kind != "rate")


def wrong_derived(
    given: dict[str, Column], histories: tuple[HistoryEntry, ...], window: WindowSection | None
) -> list[tuple[Key, str]]:
    """What is wrong between the derived columns and the columns of the spec."""
    if not histories and window is None:
        return []
    about = roles(given)
    section = "history" if histories else "window"
    if about.time is None:
        text = "looking back needs a column with the role time, found none"
        return [((section,), text)]
    found: list[tuple[Key, str]] = []
    answers = {about.label, about.kind}
    for index, entry in enumerate(histories):
        for key in ("entity", "of", "distinct"):
            name = getattr(entry, key)
            role = {"entity": "entity", "of": "numeric"}.get(key)
            usable = [n for n, c in given.items() if n not in answers and role in (None, *c.role)]
            found += _unknown(("history", index, key), name, usable, role)
        if entry.labels and about.label is None:
            text = "a history of labels needs a column with the role label, found none"
            found.append((("history", index, "labels"), text))
    if window is not None:
        found += _unknown(("window", "entity"), window.entity, about.entity, "entity")
        if not _numeric(given):
            text = "a window is of the columns with the role numeric, found none"
            found.append((("window",), text))
    return found + _taken_names(given, histories, window)


def _unknown(
    key: Key, name: str | None, usable: list[str] | tuple[str, ...], role: str | None
) -> list[tuple[Key, str]]:
    if name is None or name in usable:
        return []
    what = f"with the role {role}" if role else f"that is no {' or '.join(ANSWERS)}"
    text = f"expected a column {what} ({join_names(usable) or 'none'}), found {name!r}"
    return [(key, text + suggest(name, usable))]


def _taken_names(
    given: dict[str, Column], histories: tuple[HistoryEntry, ...], window: WindowSection | None
) -> list[tuple[Key, str]]:
    names = {c.name: "history" for c in columns([entry.history for entry in histories])}
    names |= dict.fromkeys((WINDOW, SHORT), "window") if window else {}
    return [
        (("columns", name), f"{names[name]} makes a column of this name; rename it in the input")
        for name in given
        if name in names
    ]


def _numeric(given: dict[str, Column]) -> tuple[str, ...]:
    return tuple(name for name, column in given.items() if "numeric" in column.role)
