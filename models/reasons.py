"""Why a row was flagged, in words: shares of a score back to columns, units and values."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from torch import Tensor

from models.cells import raw_inputs
from models.columns import Boolean, IPAddress, Numeric, Port, Timestamp
from models.detector import Contributions, Layout, NumericInput
from models.scaling import NumberRange, Scaling
from models.sources import Source

REASONS_TYPE = pa.list_(
    pa.struct(
        [
            ("feature", pa.string()),
            ("contribution", pa.float32()),
            ("observed", pa.string()),
            ("expected", pa.string()),
        ]
    )
)
HIDDEN = "[sensitive]"
NULL = "null"
OTHER = "other (not in the vocabulary)"
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# Length of the expected (sin, cos) below which it points nowhere: times spread over the whole
# circle average to about zero, and naming an hour then would be noise.
NO_DIRECTION = 0.1

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Feature:
    """What one reason is about: one or two entries of `layout.features`."""

    name: str
    kind: Literal["number", "flag", "null", "hour", "weekday", "category"]
    columns: frozenset[str]  # that it gives away
    shares: tuple[int, ...]  # positions in `Contributions.shares`
    position: int  # of the raw input, or of the code


def features_of(sources: tuple[Source, ...], layout: Layout) -> tuple[Feature, ...]:
    """The features of a layout, with the sine and cosine of a time as one."""
    places = {name: i for i, name in enumerate(layout.features[: len(layout.numeric)])}
    codes = {category.name: i for i, category in enumerate(layout.categories)}
    features: list[Feature] = []
    for source in sources:
        column = source.column
        if not source.feature:
            continue
        name, own = column.name, frozenset({column.name})
        inputs = raw_inputs(column, source.signature)
        match column:
            case Numeric():
                features.append(Feature(name, "number", own, (places[name],), places[name]))
            case Timestamp():
                features.extend(_cyclic(name, [places[i.name] for i in inputs]))
            case Boolean() | IPAddress() | Port():
                for i in inputs:
                    place = places[i.name]
                    features.append(
                        Feature(i.name, "flag", _given_away(column, i), (place,), place)
                    )
        null = f"{name} is null"
        if inputs and source.nullable:
            first = places[inputs[0].name]
            features.append(Feature(null, "null", own, (places[null],), first))
        if name in codes:
            share = len(layout.numeric) + codes[name]
            features.append(Feature(name, "category", own, (share,), codes[name]))
    return tuple(features)


def _given_away(column: Boolean | IPAddress | Port, flag: NumericInput) -> frozenset[str]:
    """The columns that a flag tells of: being in another's network tells of both."""
    other = column.same_network_as if isinstance(column, IPAddress) else None
    if other and flag.name.endswith(f"in the network of {other}"):
        return frozenset({column.name, other})
    return frozenset({column.name})


def _cyclic(name: str, places: list[int]) -> list[Feature]:
    own = frozenset({name})
    day = Feature(f"weekday of {name}", "weekday", own, tuple(places[-2:]), places[-2])
    if len(places) == 2:
        return [day]
    return [Feature(f"hour of {name}", "hour", own, tuple(places[:2]), places[0]), day]


class Explainer:
    """Turns contributions into reasons, feature by feature: each is formatted for all the rows
    that name it. 25 microseconds a row when it went row by row, about 5 since."""

    def __init__(
        self,
        sources: tuple[Source, ...],
        layout: Layout,
        vocabularies: dict[str, tuple[str, ...]],
        ranges: dict[str, NumberRange],
        scaling: Scaling,
    ) -> None:
        self.features = features_of(sources, layout)
        self.layout = layout
        self.vocabularies = vocabularies
        self.ranges = ranges
        self.scales = scaling.scales()

    def explain(
        self,
        values: Tensor,
        codes: Tensor,
        contributions: Contributions,
        top: int,
        sensitive: frozenset[str],
    ) -> pa.Array:
        """`REASONS_TYPE` [rows]: the `top` features by share. Those that added nothing are left
        out, but each row has at least one."""
        shares = contributions.shares.detach().double().cpu().numpy()
        totals = np.stack([shares[:, f.shares].sum(axis=1) for f in self.features], axis=1)
        order = np.argsort(-totals, axis=1, kind="stable")[:, :top]
        ranked = np.take_along_axis(totals, order, axis=1)
        kept = ranked > 0
        kept[:, :1] = True
        rows, feature = np.nonzero(kept)[0], order[kept]
        observed, expected = self._words(
            rows,
            feature,
            (values.double().cpu().numpy(), codes.cpu().numpy()),
            (
                contributions.expected.numeric.detach().double().cpu().numpy(),
                contributions.expected.codes.cpu().numpy(),
            ),
            sensitive,
        )
        names = pa.array([f.name for f in self.features], pa.string())
        reasons = pa.StructArray.from_arrays(
            [
                names.take(pa.array(feature)),
                pa.array(ranked[kept].astype(np.float32)),
                pa.array(observed.tolist(), pa.string()),
                pa.array(expected.tolist(), pa.string()),
            ],
            fields=list(REASONS_TYPE.value_type),
        )
        offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), reasons)

    def _words(
        self,
        rows: npt.NDArray[np.int64],
        feature: npt.NDArray[np.int64],
        seen: tuple[Floats, Codes],
        wanted: tuple[Floats, Codes],
        sensitive: frozenset[str],
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
        """Observed and expected of each (row, feature) pair: text [pairs]."""
        observed = np.full(len(rows), HIDDEN, object)
        expected = observed.copy()
        for place in np.unique(feature).tolist():
            described = self.features[place]
            if described.columns & sensitive:
                continue
            pairs = np.flatnonzero(feature == place)
            at = rows[pairs]
            observed[pairs] = self._observed(described, seen[0][at], seen[1][at])
            expected[pairs] = self._expected(described, wanted[0][at], wanted[1][at])
        return observed, expected

    def _observed(self, feature: Feature, values: Floats, codes: Codes) -> list[str]:
        if feature.kind == "category":
            return self._categories(feature, codes)
        column = values[:, feature.position]
        missing = np.isnan(column).tolist()
        match feature.kind:
            case "null":
                return [_yes(none) for none in missing]
            case "number":
                words = readable(column + self.ranges[feature.name].offset)
            case "flag":
                words = [_yes(value) for value in (column >= 0.5).tolist()]
            case _:
                words = _times(feature, column, values[:, feature.position + 1])
        return [NULL if none else word for none, word in zip(missing, words, strict=True)]

    def _expected(self, feature: Feature, numeric: Floats, codes: Codes) -> list[str]:
        if feature.kind == "category":
            return self._categories(feature, codes)
        scaled = [numeric[:, share] for share in feature.shares]
        match feature.kind:
            case "number":
                seen, scale = self.ranges[feature.name], self.scales[feature.position]
                # A detector may expect -3 bytes: keep to what training saw.
                return readable(np.clip(scale.invert(scaled[0]) + seen.offset, seen.low, seen.high))
            case "flag" | "null":
                return [_yes(value) for value in (scaled[0] >= 0.5).tolist()]
            case _:
                waves = [self.scales[feature.position + i].invert(scaled[i]) for i in range(2)]
                return _times(feature, waves[0], waves[1])

    def _categories(self, feature: Feature, codes: Codes) -> list[str]:
        known = (OTHER, NULL, *self.vocabularies[feature.name])
        return [known[code] for code in codes[:, feature.position].tolist()]


def readable(numbers: Floats) -> list[str]:
    """Four significant digits, with thousands separators: 1,234,000; 0.001235; 1.235e+18."""
    sizes = np.abs(numbers)
    usual = (sizes > 1e-4) & (sizes < 999)
    some = numbers[usual].tolist()
    # Most numbers need no more than this, which takes them all at once: a fourth of the time.
    words = np.empty(len(numbers), object)
    words[usual] = ("%.4g " * len(some) % tuple(some)).split()
    words[~usual] = [_readable(number) for number in numbers[~usual].tolist()]
    texts: list[str] = words.tolist()
    return texts


def _readable(number: float) -> str:
    if not math.isfinite(number):
        return str(number)
    if number == 0:
        return "0"
    if 1e-4 < abs(number) < 9_999:
        return f"{number:,.4g}"  # the same, at a fifth of the time
    rounded = float(f"{number:.3e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if not -5 < exponent < 15:  # longer than anybody reads without counting zeros
        return f"{rounded:.4g}"
    text = f"{rounded:,.{max(3 - exponent, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _times(feature: Feature, sine: Floats, cosine: Floats) -> list[str]:
    """ "03:12", or "Sunday", of points on the circle."""
    hour = feature.kind == "hour"
    each = 1440 if hour else 7
    turns = np.arctan2(sine, cosine) / (2 * np.pi)
    places = np.rint(np.nan_to_num(turns) * each).astype(np.int64) % each
    nowhere = "any hour" if hour else "any day"
    # NaN points nowhere either.
    known = (np.hypot(sine, cosine) >= NO_DIRECTION).tolist()
    return [
        (_clock(place) if hour else WEEKDAYS[place]) if there else nowhere
        for there, place in zip(known, places.tolist(), strict=True)
    ]


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"
