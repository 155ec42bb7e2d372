"""Explains in words why a row was flagged: shares of a score become columns, units and values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.columns import Boolean, IPAddress, Numeric, Port, SignalColumn, Timestamp
from models.encoding.bins import find_run
from models.encoding.column_statistics import LONGEST_TEXT
from models.encoding.extractor import Extractor
from models.encoding.layout import list_raw_inputs
from models.encoding.raw_batch import RawBatch, Unseen
from models.evidence import Evidence
from models.explaining.numbers import format_numbers
from models.explaining.places import Words
from models.explaining.reasons import REASONS
from models.explaining.signals import SignalWords
from models.layout import Layout, NumericInput
from models.schema import Source

HIDDEN = "[sensitive]"
NULL = "null"
OTHER = "another value"
NOT_NULL = "not null"
# Reasons that are described beyond those asked for: some turn out to be as expected.
_SPARE = 4
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Share of the rows of training whose hours, or weekdays, are called usual.
MOST = 0.9
# An expected (sin, cos) with a smaller length has no direction: times that are spread over the
# whole circle have a mean of about zero, and to name an hour would be noise.
NO_DIRECTION = 0.1

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Feature:
    """What a reason may be about: one or two entries of `layout.features`."""

    column: str
    name: str
    kind: Literal["number", "flag", "null", "hour", "weekday", "category", "signal", "tokens"]
    columns: frozenset[str]  # columns whose values it shows
    shares: tuple[int, ...]  # positions in `Contributions.shares`
    position: int  # position of the raw input, code, signal or tokens
    null: int | None = None  # position of the column's null indicator in `Contributions.shares`
    leads: bool = False  # named before the other features of its column


def list_features(sources: tuple[Source, ...], layout: Layout) -> tuple[Feature, ...]:
    """List the features of a layout. The sine and cosine of a time are one feature."""
    places = {name: i for i, name in enumerate(layout.features[: len(layout.numeric)])}
    codes = {category.name: i for i, category in enumerate(layout.categories)}
    features: list[Feature] = []
    for source in sources:
        column = source.column
        if not source.feature:
            continue
        name, own = column.name, frozenset({column.name})
        inputs = list_raw_inputs(column, source.signature)
        null = places.get(f"{name} is null")
        found: list[Feature] = []
        match column:
            case Numeric():
                found.append(Feature(name, name, "number", own, (places[name],), places[name]))
            case Timestamp():
                found.extend(_list_cyclic(name, [places[i.name] for i in inputs]))
            case Boolean() | IPAddress() | Port():
                for i in inputs:
                    place, shown = places[i.name], _find_shown_columns(column, i)
                    found.append(Feature(name, i.name, "flag", shown, (place,), place))
        if isinstance(column, SignalColumn):
            found.extend(_list_wide(name, layout))
            if null is not None:
                found.append(Feature(name, name, "null", own, (null,), null))
        elif null is not None:
            found = [replace(feature, null=null) for feature in found]
        if name in codes:
            share = len(layout.numeric) + codes[name]
            port = isinstance(column, Port)  # its number says more than its class
            found.append(Feature(name, name, "category", own, (share,), codes[name], leads=port))
        features.extend(found)
    return tuple(features)


def _list_wide(name: str, layout: Layout) -> list[Feature]:
    """The signal and the tokens of a column."""
    own, first = frozenset({name}), len(layout.numeric) + len(layout.categories)
    after = first + len(layout.signals)
    signals = [
        Feature(name, signal.name, "signal", own, (first + i,), i)
        for i, signal in enumerate(layout.signals)
        if signal.name in (name, f"{name} n-grams")
    ]
    return signals + [
        Feature(name, name, "tokens", own, (after + i,), i)
        for i, tokens in enumerate(layout.tokens)
        if tokens.name == name
    ]


def _find_shown_columns(column: Boolean | IPAddress | Port, flag: NumericInput) -> frozenset[str]:
    """The columns whose values a flag shows. A shared network shows two of them."""
    other = column.same_network_as if isinstance(column, IPAddress) else None
    if other and flag.name.endswith(f"in the network of {other}"):
        return frozenset({column.name, other})
    return frozenset({column.name})


def _list_cyclic(name: str, places: list[int]) -> list[Feature]:
    own = frozenset({name})
    day = Feature(name, f"weekday of {name}", "weekday", own, tuple(places[-2:]), places[-2])
    if len(places) == 2:
        return [day]
    return [Feature(name, f"hour of {name}", "hour", own, tuple(places[:2]), places[0]), day]


class _Told(NamedTuple):
    """What (row, feature) pairs show: text [pairs] each."""

    observed: npt.NDArray[np.object_]
    expected: npt.NDArray[np.object_]
    usual: npt.NDArray[np.object_]  # None where nothing short can be said

    def take(self, places: Codes) -> "_Told":
        return _Told(*(column[places] for column in self))


class Explainer:
    """Turns contributions into reasons.

    Each feature is formatted at once for all rows that name it. This takes about 5 microseconds per
    row; formatting row by row took 25.
    """

    def __init__(self, extractor: Extractor) -> None:
        self.features = list_features(extractor.sources, extractor.layout)
        self.layout = extractor.layout
        self.vocabularies = extractor.vocabularies
        self.uses = extractor.uses
        self.ranges = extractor.ranges
        self.bins = extractor.bins
        self.scales = extractor.scales
        columns = {source.column.name: source.column for source in extractor.sources}
        self.signals = SignalWords(
            extractor.layout, columns, extractor.vocabularies, extractor.signal_scales
        )
        named = list(dict.fromkeys(feature.column for feature in self.features))
        places = [named.index(feature.column) for feature in self.features]
        # The features of each column: bool [columns, features].
        self.groups = np.arange(len(named))[:, None] == np.array(places, np.int64)
        self.usual = [self._describe_usual(feature) for feature in self.features]

    def explain(
        self,
        raw: RawBatch,
        evidence: Evidence,
        top: int,
        sensitive: frozenset[str] = frozenset(),
    ) -> pa.Array:
        """The reasons of each row, `REASONS` [rows]: the `top` columns with the largest shares.

        The share of a column is the sum over its features. A reason names the feature with the
        largest share whose observed value is not the expected one; without such a feature, or
        without a share, there is no reason. If no share is above 0, the largest is a reason. A
        sensitive column shows "[sensitive]" instead of values.
        """
        shares = evidence.shares.astype(np.float64)
        own = np.stack([shares[:, list(f.shares)].sum(axis=1) for f in self.features], axis=1)
        nulls = [(i, f.null) for i, f in enumerate(self.features) if f.null is not None]
        differs = self._find_different(raw, evidence)
        whole = own.copy()
        for null, place in {null: i for i, null in nulls}.items():  # once for each column
            whole[:, place] += shares[:, null]
        totals = whole @ self.groups.T
        ahead = np.array([feature.leads for feature in self.features])
        weight = np.where(differs, own, -np.inf)
        weight[:, ahead] = np.where(differs[:, ahead], np.inf, -np.inf)
        lead = np.where(self.groups, weight[:, None, :], -np.inf).argmax(axis=2)
        ranks = np.where((differs[:, None, :] & self.groups).any(axis=2), totals, -np.inf)
        order = np.argsort(-ranks, axis=1, kind="stable")[:, : top + _SPARE]
        ranked = np.take_along_axis(ranks, order, axis=1)
        chosen = ranked > 0
        chosen[:, :1] = ranked[:, :1] > -np.inf
        chosen &= top > 0
        rows, feature = np.nonzero(chosen)[0], np.take_along_axis(lead, order, axis=1)[chosen]
        told = self._describe(rows, feature, raw, evidence, sensitive)
        hidden = told.observed == HIDDEN
        kept = np.asarray(told.observed != told.expected, bool) | np.asarray(hidden, bool)
        places = np.flatnonzero(kept)
        first = np.searchsorted(rows[places], rows[places])  # the first reason of the same row
        places = places[np.arange(len(places)) - first < top]
        return self._make_reasons(
            np.bincount(rows[places], minlength=len(shares)),
            feature[places],
            ranked[chosen][places],
            told.take(places),
        )

    def _make_reasons(self, counts: Codes, feature: Codes, shares: Floats, told: _Told) -> pa.Array:
        """`REASONS` [rows]: `counts` of each row, one after the other."""
        names = pa.array([f.name for f in self.features], pa.string())
        reasons = pa.StructArray.from_arrays(
            [
                names.take(pa.array(feature)),
                pa.array(shares.astype(np.float32)),
                pa.array(told.observed.tolist(), pa.string()),
                pa.array(told.expected.tolist(), pa.string()),
                pa.array(told.usual.tolist(), pa.string()),
            ],
            fields=list(REASONS.value_type),
        )
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), reasons)

    def _find_different(self, raw: RawBatch, evidence: Evidence) -> Bools:
        """Whether a feature is not as expected: bool [rows, features]. Numbers that read alike and
        signals are told apart by their words later."""
        values, codes = raw.values.astype(np.float64), raw.codes
        numeric, wanted = evidence.numeric.astype(np.float64), evidence.codes
        found = np.ones((raw.rows, len(self.features)), bool)
        for place, feature in enumerate(self.features):
            at = feature.position
            match feature.kind:
                case "category":
                    found[:, place] = codes[:, at] != wanted[:, at]
                case "flag" | "null":
                    missing = np.isnan(values[:, at])
                    yes = (values[:, at] >= 0.5) != (numeric[:, feature.shares[0]] >= 0.5)
                    found[:, place] = missing | yes
                case "hour" | "weekday":
                    seen = _find_places(feature, values[:, at], values[:, at + 1])
                    expected = _find_places(feature, *self._invert_waves(feature, numeric))
                    found[:, place] = seen != expected
        return found

    def _describe_usual(self, feature: Feature) -> str | None:
        """What training had, in a few words; None where there are none for this kind."""
        if feature.kind == "number":
            known = self.ranges[feature.name]
            if known.median is None:
                return None
            median, low, high = format_numbers(np.array([known.median, known.low, known.high]))
            return f"median {median}, {low} to {high}"
        if counts := self.bins.get(feature.name):
            return _describe_counts(feature, counts)
        use = self.uses.get(feature.name)
        if feature.kind != "category" or not use or not self.vocabularies[feature.name]:
            return None
        text = _shorten(self.vocabularies[feature.name][0])
        return f"most often {text} {_give_share(use.most, use.rows)}"

    def _describe(
        self,
        rows: Codes,
        feature: Codes,
        raw: RawBatch,
        evidence: Evidence,
        sensitive: frozenset[str],
    ) -> _Told:
        """The observed and the expected value of each (row, feature) pair."""
        values, codes = raw.values.astype(np.float64), raw.codes
        numeric, wanted = evidence.numeric.astype(np.float64), evidence.codes
        unseen = {one.category: one for one in raw.unseen}
        observed = np.full(len(rows), HIDDEN, object)
        expected = observed.copy()
        usual = np.full(len(rows), None, object)
        for place in np.unique(feature).tolist():
            described = self.features[place]
            if described.columns & sensitive:
                continue
            pairs = np.flatnonzero(feature == place)
            at = rows[pairs]
            if described.kind in ("signal", "tokens"):
                words = self._describe_wide(described, at, raw, evidence)
                observed[pairs], expected[pairs], usual[pairs] = zip(*words, strict=True)
                continue
            usual[pairs] = self.usual[place]
            observed[pairs] = self._describe_observed(described, values[at], codes[at])
            expected[pairs] = self._describe_expected(described, numeric[at], wanted[at])
            if described.kind == "category" and described.position in unseen:
                self._name_unseen(described, unseen[described.position], pairs, at, observed)
        return _Told(observed, expected, usual)

    def _name_unseen(
        self,
        feature: Feature,
        unseen: Unseen,
        pairs: Codes,
        rows: Codes,
        observed: npt.NDArray[np.object_],
    ) -> None:
        """Replace "another value" by the value, and say how training knows it."""
        use = self.uses.get(feature.name)
        known = len(self.vocabularies[feature.name])
        why = f"not among the {known:,} most frequent of training"
        if use and use.complete:
            why = f"in none of {use.rows:,} training rows"
        texts = dict(zip(unseen.rows.tolist(), unseen.texts.to_pylist(), strict=True))
        for pair, row in zip(pairs.tolist(), rows.tolist(), strict=True):
            if (text := texts.get(row)) is not None:
                observed[pair] = f"{_shorten(text)}, {why}"

    def _describe_wide(
        self, feature: Feature, rows: Codes, raw: RawBatch, evidence: Evidence
    ) -> list[Words]:
        (name,) = feature.columns
        describe = (
            self.signals.describe_signals
            if feature.kind == "signal"
            else self.signals.describe_tokens
        )
        return describe(name, feature.position, rows, raw, evidence)

    def _describe_observed(self, feature: Feature, values: Floats, codes: Codes) -> list[str]:
        if feature.kind == "category":
            return self._name_categories(feature, codes)
        column = values[:, feature.position]
        missing = np.isnan(column).tolist()
        match feature.kind:
            case "null":
                return [NULL if value else NOT_NULL for value in (column >= 0.5).tolist()]
            case "number":
                words = format_numbers(column + self.ranges[feature.name].offset)
            case "flag":
                words = [_to_yes_or_no(value) for value in (column >= 0.5).tolist()]
            case _:
                words = _format_times(feature, column, values[:, feature.position + 1])
        return [NULL if none else word for none, word in zip(missing, words, strict=True)]

    def _describe_expected(self, feature: Feature, numeric: Floats, codes: Codes) -> list[str]:
        if feature.kind == "category":
            return self._name_categories(feature, codes)
        words = self._describe_number(feature, numeric)
        if feature.null is None:
            return words
        missing = (numeric[:, feature.null] >= 0.5).tolist()
        return [NULL if none else word for none, word in zip(missing, words, strict=True)]

    def _describe_number(self, feature: Feature, numeric: Floats) -> list[str]:
        """The expected values of a feature that is no category, as if none were null."""
        scaled = [numeric[:, share] for share in feature.shares]
        match feature.kind:
            case "number":
                known, scale = self.ranges[feature.name], self.scales[feature.position]
                # A detector may expect -3 bytes: keep to the range of training.
                return format_numbers(
                    np.clip(scale.invert(scaled[0]) + known.offset, known.low, known.high)
                )
            case "null":
                return [NULL if value else NOT_NULL for value in (scaled[0] >= 0.5).tolist()]
            case "flag":
                return [_to_yes_or_no(value) for value in (scaled[0] >= 0.5).tolist()]
            case _:
                return _format_times(feature, *self._invert_waves(feature, numeric))

    def _invert_waves(self, feature: Feature, numeric: Floats) -> tuple[Floats, Floats]:
        """The expected sine and cosine of a time."""
        scales = self.scales[feature.position : feature.position + 2]
        sine, cosine = feature.shares
        return scales[0].invert(numeric[:, sine]), scales[1].invert(numeric[:, cosine])

    def _name_categories(self, feature: Feature, codes: Codes) -> list[str]:
        known = (OTHER, NULL, *self.vocabularies[feature.name])
        return [known[code] for code in codes[:, feature.position].tolist()]


def _shorten(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


def _describe_counts(feature: Feature, counts: Sequence[int]) -> str | None:
    """What training had of a flag, an hour or a weekday."""
    total = sum(counts)
    if not total:
        return None
    if feature.kind == "flag":
        yes = counts[1] >= counts[0]
        return f"most often {_to_yes_or_no(yes)} {_give_share(max(counts), total)}"
    first, bins, rows = find_run(counts, MOST)
    if bins > MOST * len(counts):
        return "at all hours" if feature.kind == "hour" else "on all days"
    if feature.kind == "hour":
        return f"{first:02}:00 to {(first + bins) % 24:02}:00 {_give_share(rows, total)}"
    days = [WEEKDAYS[first]] + ([WEEKDAYS[(first + bins - 1) % 7]] if bins > 1 else [])
    return f"{' to '.join(days)} {_give_share(rows, total)}"


def _give_share(rows: int, total: int) -> str:
    return f"({rows / total:.2g} of {total:,} rows)"


def _to_yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"


def _format_times(feature: Feature, sine: Floats, cosine: Floats) -> list[str]:
    """The times of points on the circle, such as "03:12" or "Sunday"."""
    hour = feature.kind == "hour"
    nowhere = "any hour" if hour else "any day"
    return [
        (_format_clock(place) if hour else WEEKDAYS[place]) if place >= 0 else nowhere
        for place in _find_places(feature, sine, cosine).tolist()
    ]


def _find_places(feature: Feature, sine: Floats, cosine: Floats) -> Codes:
    """The minute of the day, or the day of the week; -1 for a point without a direction."""
    each = 1440 if feature.kind == "hour" else 7
    turns = np.arctan2(sine, cosine) / (2 * np.pi)
    places = np.rint(np.nan_to_num(turns) * each).astype(np.int64) % each
    # NaN has no direction either.
    return np.where(np.hypot(sine, cosine) >= NO_DIRECTION, places, -1)


def _format_clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
