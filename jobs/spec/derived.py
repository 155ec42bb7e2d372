"""The sections of a spec that derive columns from other rows: `history` and `window`."""

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cluster.lake.derived.derivation import Derivation
from cluster.lake.derived.history import DerivedColumn, History, list_columns, parse_span
from cluster.lake.derived.windows import SHORT, WINDOW, Window
from jobs.spec.columns import ANSWERS, Column, Frozen, as_tuple, collect_roles
from jobs.spec.errors import key_errors, value_error
from jobs.spec.source import Key
from models.columns import Boolean, FeatureColumn, Numeric, Roles, Sequence
from models.suggestion import join_names, suggest


def _check_span(text: str) -> str:
    try:
        parse_span(text)
    except ValueError:
        raise value_error("minutes, hours or days, such as 30m, 12h or 7d") from None
    return text


Span = Annotated[str, AfterValidator(_check_span)]
Spans = Annotated[tuple[Span, ...], BeforeValidator(as_tuple), Field(min_length=1)]


class HistoryEntry(Frozen):
    """Features from the earlier rows of the same entity.

    Every entry counts the rows of each horizon. Without a delay it also adds the seconds since the
    entity's last row. Earlier means an earlier time, or an earlier place in the input at the same
    time. The features are computed once a day and stored under `output.uri`/_derived; `plan` lists
    them.
    """

    entity: str
    """A column with the role entity."""
    horizons: Spans = ("1d", "7d", "30d")
    """How far to look back: minutes, hours or days such as 30m, 12h or 7d."""
    of: str | None = None
    """A numeric column. Adds its sum and mean."""
    distinct: str | None = None
    """A column. Adds the number of its distinct values."""
    delay: Span | None = None
    """Ignores rows that are younger than this."""
    labels: bool = False
    """Adds the share of anomalies among the labelled rows. Needs a delay: labels arrive late."""

    @model_validator(mode="after")
    def _check(self) -> "HistoryEntry":
        found: list[tuple[Key, str]] = []
        if self.labels and self.delay is None:
            text = "labels arrive late; expected a delay after which they are known, such as 7d"
            found.append((("delay",), f"{text}, found none"))
        for key in ("of", "distinct"):
            if self.labels and getattr(self, key) is not None:
                text = "expected no labels beside it; write a second entry for the labels"
                found.append(((key,), text))
        if found:
            raise key_errors(found)
        return self

    @property
    def history(self) -> History:
        return History(**self.model_dump())


class WindowSection(Frozen):
    """A series for each row: the numeric columns of the last rows of its entity."""

    entity: str | None = None
    """A column with the role entity; null where all rows are of one machine."""
    length: Annotated[int, Field(ge=2, le=10_000)]
    """Rows of the series, including the row itself."""
    horizon: Span = "1d"
    """Oldest row of the series, as time before the row itself."""
    alone: bool = False
    """Takes the numeric columns out of the other features. For detectors of series only."""

    def window(self, channels: tuple[str, ...]) -> Window:
        return Window(self.entity, self.length, channels, self.horizon)


Histories = Annotated[tuple[HistoryEntry, ...], BeforeValidator(as_tuple)]


def build_derivation(
    inputs: dict[str, Column],
    histories: tuple[HistoryEntry, ...],
    window: WindowSection | None,
    row_filter: str | None,
    training_filter: str | None,
) -> Derivation | None:
    """The columns that a spec derives from other rows; None without a history or window."""
    if not histories and window is None:
        return None
    roles = collect_roles(inputs)
    assert roles.time is not None  # see `check_derived`
    return Derivation(
        columns=tuple(inputs),
        time=roles.time,
        label=roles.label,
        normal=roles.normal,
        filter=row_filter,
        also=training_filter,
        history=tuple(entry.history for entry in histories),
        window=window.window(_numeric_columns(inputs)) if window else None,
        time_unit=roles.time_unit,
        exact=tuple(dict.fromkeys((*roles.flagged, *filter(None, (roles.label, roles.kind))))),
    )


def add_features(
    features: tuple[FeatureColumn, ...], derivation: Derivation, window: WindowSection | None
) -> tuple[FeatureColumn, ...]:
    """The features of the columns and those derived from other rows."""
    made = [*features, *(_make_feature(column) for column in derivation.derived)]
    if window is None or derivation.window is None:
        return tuple(made)
    series = Sequence(WINDOW, length=window.length)
    if not window.alone:
        return (*made, series, Boolean(SHORT))
    return (*(f for f in made if f.name not in derivation.window.channels), series)


def add_roles(roles: Roles, derivation: Derivation) -> Roles:
    """The roles with derived columns, which are sensitive if their source is."""
    hidden = {c.name for c in derivation.derived if c.of in roles.sensitive}
    pictured = roles.pictured
    if derivation.window:
        if roles.sensitive & set(derivation.window.channels):
            hidden.add(WINDOW)
        else:
            pictured = (*pictured, WINDOW)
    return replace(roles, sensitive=roles.sensitive | hidden, pictured=pictured)


def _make_feature(column: DerivedColumn) -> Numeric:
    # All but shares have long tails: one customer pays once a month, another all day.
    return Numeric(column.name, log1p=column.kind != "rate")


def check_derived(
    inputs: dict[str, Column], histories: tuple[HistoryEntry, ...], window: WindowSection | None
) -> list[tuple[Key, str]]:
    """Problems between the derived columns and the columns of the spec."""
    if not histories and window is None:
        return []
    roles = collect_roles(inputs)
    section = "history" if histories else "window"
    if roles.time is None:
        text = "expected a column with the role time, by which to look back, found none"
        return [((section,), text)]
    found: list[tuple[Key, str]] = []
    answers = {roles.label, roles.kind}
    for index, entry in enumerate(histories):
        for key in ("entity", "of", "distinct"):
            name = getattr(entry, key)
            role = {"entity": "entity", "of": "numeric"}.get(key)
            usable = [n for n, c in inputs.items() if n not in answers and role in (None, *c.role)]
            found += _check_column(("history", index, key), name, usable, role)
        if entry.labels and roles.label is None:
            text = "expected a column with the role label, found none"
            found.append((("history", index, "labels"), text))
    if window is not None:
        found += _check_column(("window", "entity"), window.entity, roles.entity, "entity")
        if not _numeric_columns(inputs):
            text = "expected columns with the role numeric, found none"
            found.append((("window",), text))
    return found + _check_names(inputs, histories, window)


def _check_column(
    key: Key, name: str | None, usable: list[str] | tuple[str, ...], role: str | None
) -> list[tuple[Key, str]]:
    if name is None or name in usable:
        return []
    kind = f"with the role {role}" if role else f"without the role {' or '.join(ANSWERS)}"
    text = f"expected a column {kind} ({join_names(usable) or 'none'}), found {name!r}"
    return [(key, text + suggest(name, usable))]


def _check_names(
    inputs: dict[str, Column], histories: tuple[HistoryEntry, ...], window: WindowSection | None
) -> list[tuple[Key, str]]:
    names = {c.name: "history" for c in list_columns([entry.history for entry in histories])}
    names |= dict.fromkeys((WINDOW, SHORT), "window") if window else {}
    return [
        (("columns", name), f"{names[name]} adds a column of this name; rename it in the input")
        for name in inputs
        if name in names
    ]


def _numeric_columns(inputs: dict[str, Column]) -> tuple[str, ...]:
    return tuple(name for name, column in inputs.items() if "numeric" in column.role)
