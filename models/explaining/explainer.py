"""Explains in words why a row was flagged: shares of a score become columns, units and values."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.batch import Contributions, Layout, NumericInput
from models.columns import Boolean, IPAddress, Numeric, Port, SignalColumn, Timestamp
from models.encoding.encoder import Encoder
from models.encoding.layout import list_raw_inputs
from models.encoding.raw_batch import RawBatch
from models.explaining.numbers import format_numbers
from models.explaining.places import Words
from models.explaining.reasons import REASONS
from models.explaining.signals import SignalWords
from models.schema import Source

HIDDEN = "[sensitive]"
NULL = "null"
OTHER = "other (not in the vocabulary)"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# An expected (sin, cos) with a smaller length has no direction: times that are spread over the
# whole circle have a mean of about zero, and to name an hour would be noise.
NO_DIRECTION = 0.1

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Feature:
    """The subject of a reason: one or two entries of `layout.features`."""

    name: str
    kind: Literal["number", "flag", "null", "hour", "weekday", "category", "signal", "tokens"]
    columns: frozenset[str]  # columns whose values it shows
    shares: tuple[int, ...]  # positions in `Contributions.shares`
    position: int  # position of the raw input, code, signal or tokens


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
        match column:
            case Numeric():
                features.append(Feature(name, "number", own, (places[name],), places[name]))
            case Timestamp():
                features.extend(_list_cyclic(name, [places[i.name] for i in inputs]))
            case Boolean() | IPAddress() | Port():
                for i in inputs:
                    place = places[i.name]
                    features.append(
                        Feature(i.name, "flag", _find_shown_columns(column, i), (place,), place)
                    )
        null = f"{name} is null"
        if isinstance(column, SignalColumn):
            features.extend(_list_wide(name, layout))
            if null in places:
                features.append(Feature(null, "flag", own, (places[null],), places[null]))
        elif inputs and source.nullable:
            first = places[inputs[0].name]
            features.append(Feature(null, "null", own, (places[null],), first))
        if name in codes:
            share = len(layout.numeric) + codes[name]
            features.append(Feature(name, "category", own, (share,), codes[name]))
    return tuple(features)


def _list_wide(name: str, layout: Layout) -> list[Feature]:
    """The signal and the tokens of a column."""
    own, first = frozenset({name}), len(layout.numeric) + len(layout.categories)
    after = first + len(layout.signals)
    signals = [
        Feature(signal.name, "signal", own, (first + i,), i)
        for i, signal in enumerate(layout.signals)
        if signal.name in (name, f"{name} n-grams")
    ]
    return signals + [
        Feature(name, "tokens", own, (after + i,), i)
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
    day = Feature(f"weekday of {name}", "weekday", own, tuple(places[-2:]), places[-2])
    if len(places) == 2:
        return [day]
    return [Feature(f"hour of {name}", "hour", own, tuple(places[:2]), places[0]), day]


class Explainer:
    """Turns contributions into reasons.

    Each feature is formatted at once for all rows that name it. This takes about 5 microseconds per
    row; formatting row by row took 25.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.features = list_features(encoder.sources, encoder.layout)
        self.layout = encoder.layout
        self.vocabularies = encoder.vocabularies
        self.ranges = encoder.ranges
        self.scales = encoder.scaling.to_scales()
        columns = {source.column.name: source.column for source in encoder.sources}
        self.signals = SignalWords(encoder.layout, columns, encoder.vocabularies, encoder.scalings)

    def explain(
        self,
        extracted: RawBatch,
        contributions: Contributions,
        top: int,
        sensitive: frozenset[str] = frozenset(),
    ) -> pa.Array:
        """The reasons of each row, `REASONS` [rows]: the `top` features with the largest shares.

        A feature without a share is left out, but each row has at least one reason. The share of a
        time is the sum of the shares of its sine and cosine. A sensitive column shows "[sensitive]"
        instead of the observed and the expected value.
        """
        shares = contributions.shares.detach().double().cpu().numpy()
        totals = np.stack([shares[:, f.shares].sum(axis=1) for f in self.features], axis=1)
        order = np.argsort(-totals, axis=1, kind="stable")[:, :top]
        ranked = np.take_along_axis(totals, order, axis=1)
        kept = ranked > 0
        kept[:, :1] = True
        rows, feature = np.nonzero(kept)[0], order[kept]
        observed, expected = self._describe(
            rows, feature, extracted.to("cpu"), contributions, sensitive
        )
        names = pa.array([f.name for f in self.features], pa.string())
        reasons = pa.StructArray.from_arrays(
            [
                names.take(pa.array(feature)),
                pa.array(ranked[kept].astype(np.float32)),
                pa.array(observed.tolist(), pa.string()),
                pa.array(expected.tolist(), pa.string()),
            ],
            fields=list(REASONS.value_type),
        )
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), reasons)

    def _describe(
        self,
        rows: npt.NDArray[np.int64],
        feature: npt.NDArray[np.int64],
        raw: RawBatch,
        contributions: Contributions,
        sensitive: frozenset[str],
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """The observed and the expected value of each (row, feature) pair: text [pairs] each."""
        values, codes = raw.values.double().numpy(), raw.codes.numpy()
        numeric = contributions.expected.numeric.detach().double().cpu().numpy()
        wanted = contributions.expected.codes.cpu().numpy()
        observed = np.full(len(rows), HIDDEN, object)
        expected = observed.copy()
        for place in np.unique(feature).tolist():
            described = self.features[place]
            if described.columns & sensitive:
                continue
            pairs = np.flatnonzero(feature == place)
            at = rows[pairs]
            if described.kind in ("signal", "tokens"):
                words = self._describe_wide(described, at, raw, contributions)
                observed[pairs], expected[pairs] = zip(*words, strict=True)
                continue
            observed[pairs] = self._describe_observed(described, values[at], codes[at])
            expected[pairs] = self._describe_expected(described, numeric[at], wanted[at])
        return observed, expected

    def _describe_wide(
        self, feature: Feature, rows: Codes, raw: RawBatch, contributions: Contributions
    ) -> list[Words]:
        (name,) = feature.columns
        describe = (
            self.signals.describe_signals
            if feature.kind == "signal"
            else self.signals.describe_tokens
        )
        expected = contributions.expected.map(lambda tensor: tensor.detach())
        maps = tuple(each.detach() for each in contributions.maps)
        return describe(name, feature.position, rows, raw, expected, maps)

    def _describe_observed(self, feature: Feature, values: Floats, codes: Codes) -> list[str]:
        if feature.kind == "category":
            return self._name_categories(feature, codes)
        column = values[:, feature.position]
        missing = np.isnan(column).tolist()
        match feature.kind:
            case "null":
                return [_to_yes_or_no(none) for none in missing]
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
        scaled = [numeric[:, share] for share in feature.shares]
        match feature.kind:
            case "number":
                known, scale = self.ranges[feature.name], self.scales[feature.position]
                # A detector may expect -3 bytes: keep to the range of training.
                return format_numbers(
                    np.clip(scale.invert(scaled[0]) + known.offset, known.low, known.high)
                )
            case "flag" | "null":
                return [_to_yes_or_no(value) for value in (scaled[0] >= 0.5).tolist()]
            case _:
                waves = [self.scales[feature.position + i].invert(scaled[i]) for i in range(2)]
                return _format_times(feature, waves[0], waves[1])

    def _name_categories(self, feature: Feature, codes: Codes) -> list[str]:
        known = (OTHER, NULL, *self.vocabularies[feature.name])
        return [known[code] for code in codes[:, feature.position].tolist()]


def _to_yes_or_no(flag: bool) -> str:
    return "yes" if flag else "no"


def _format_times(feature: Feature, sine: Floats, cosine: Floats) -> list[str]:
    """The times of points on the circle, such as "03:12" or "Sunday"."""
    hour = feature.kind == "hour"
    each = 1440 if hour else 7
    turns = np.arctan2(sine, cosine) / (2 * np.pi)
    places = np.rint(np.nan_to_num(turns) * each).astype(np.int64) % each
    nowhere = "any hour" if hour else "any day"
    # NaN has no direction either.
    known = (np.hypot(sine, cosine) >= NO_DIRECTION).tolist()
    return [
        (_format_clock(place) if hour else WEEKDAYS[place]) if there else nowhere
        for there, place in zip(known, places.tolist(), strict=True)
    ]


def _format_clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
