"""Policies that choose a threshold from calibration scores. A score above it makes a flag."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models import canonical_json
from models.refusal import Refusal
from models.scores.extreme_values import LEAST_EXCESSES, fit_tail
from models.scores.sketch import ScoreSketch

_Rows = NDArray[np.float64]

# A calibration of three full sketches takes 150 KB as JSON, a threshold 300 bytes.
MAX_CALIBRATION_BYTES = 4 << 20
MAX_THRESHOLD_BYTES = 64 << 10


@dataclass(frozen=True)
class Calibration:
    """Scores of held-back rows. Thresholds and severities are made from them.

    Raises Refusal if there are no scores, or if `days` or `entities_per_day` is not above 0.
    """

    scores: ScoreSketch  # of all rows, labelled or not
    normal: ScoreSketch | None = None  # of the rows labelled 0
    anomalous: ScoreSketch | None = None  # of the rows labelled 1
    days: float = 1  # days that the rows stand for: half of a day's rows are 0.5 days
    entities_per_day: float | None = None  # distinct entities on an average day

    def __post_init__(self) -> None:
        if self.scores.count == 0:
            raise Refusal("expected calibration scores; found no rows: hold back days with rows")
        if not 0 < self.days < float("inf"):
            raise Refusal(f"expected a calibration of more than 0 days; found {self.days}")
        if self.entities_per_day is not None and not 0 < self.entities_per_day < float("inf"):
            raise Refusal(f"expected entities per day above 0; found {self.entities_per_day}")

    @property
    def digest(self) -> str:
        """SHA-256 of `to_bytes()`, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """The calibration as canonical JSON."""
        return _encode(
            {
                "scores": self.scores.to_document(),
                "normal": None if self.normal is None else self.normal.to_document(),
                "anomalous": None if self.anomalous is None else self.anomalous.to_document(),
                "days": self.days,
                "entities_per_day": self.entities_per_day,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The calibration that `to_bytes` wrote. Raises Refusal for any other bytes."""
        document = _parse(data, MAX_CALIBRATION_BYTES, "a calibration", set(cls.__annotations__))
        days, entities = document["days"], document["entities_per_day"]
        if not isinstance(days, int | float) or not isinstance(entities, int | float | None):
            raise Refusal("expected a calibration; its days or entities per day are not numbers")
        normal, anomalous = document["normal"], document["anomalous"]
        return cls(
            ScoreSketch.from_document(document["scores"]),
            None if normal is None else ScoreSketch.from_document(normal),
            None if anomalous is None else ScoreSketch.from_document(anomalous),
            days,
            entities,
        )


@dataclass(frozen=True)
class Quantile:
    """Flags at most a share of `contamination` of the calibration rows."""

    contamination: float  # above 0 and below 1; 0.001 is one row in a thousand

    def __post_init__(self) -> None:
        _check("contamination", self.contamination, below=1)


@dataclass(frozen=True)
class Budget:
    """Flags at most `flags` rows per day on average, in all or for each entity.

    The average is taken over the calibration: one day, or one entity, may have more flags.
    """

    flags: float
    per: Literal["day", "day_and_entity"] = "day"

    def __post_init__(self) -> None:
        _check("flags", self.flags)
        if self.per not in ("day", "day_and_entity"):
            raise Refusal(f"expected per to be 'day' or 'day_and_entity'; found {self.per!r}")


@dataclass(frozen=True)
class FBeta:
    """Has the best F-beta on the labelled rows: recall counts `beta` times as much as precision."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check("beta", self.beta)


@dataclass(frozen=True)
class Cost:
    """Has the least cost on the labelled rows. Both costs share one unit, for example euros."""

    false_positive: float  # cost of a flagged normal row
    false_negative: float  # cost of an anomaly without a flag

    def __post_init__(self) -> None:
        _check("false_positive", self.false_positive)
        _check("false_negative", self.false_negative)


@dataclass(frozen=True)
class ExtremeValue:
    """Flags a normal row with a probability that is extrapolated from the upper tail.

    This is peaks over threshold, the initial step of SPOT (Siffer et al., KDD 2017). It is meant
    for probabilities so small that few calibration rows, or none, lie above the threshold.
    """

    probability: float  # above 0 and below tail_fraction
    tail_fraction: float = 0.02  # share of the rows in the fitted tail, from Siffer et al.

    def __post_init__(self) -> None:
        _check("tail_fraction", self.tail_fraction, below=1)
        _check("probability", self.probability, below=self.tail_fraction)


Policy = Quantile | Budget | FBeta | Cost | ExtremeValue

POLICIES: dict[str, type[Policy]] = {
    "quantile": Quantile,
    "budget": Budget,
    "f_beta": FBeta,
    "cost": Cost,
    "extreme_value": ExtremeValue,
}


def describe(policy: Policy) -> dict[str, Any]:
    """The policy as a JSON object.

    >>> describe(Quantile(0.001))
    {'policy': 'quantile', 'contamination': 0.001}
    """
    name = next(name for name, kind in POLICIES.items() if type(policy) is kind)
    return {"policy": name, **asdict(policy)}


def choose(policy: Policy, calibration: Calibration) -> float:
    """Choose the threshold of a policy: a finite number that float32 holds exactly.

    Raises Refusal if the calibration lacks something that the policy needs, such as labels.

    >>> sketch = ScoreSketch()
    >>> sketch.update(np.arange(1000))
    >>> calibration = Calibration(sketch, days=10)
    >>> choose(Quantile(0.01), calibration)  # 1% of the rows score higher
    989.0
    >>> choose(Budget(2), calibration)  # two rows per day score higher
    979.0
    """
    match policy:
        case Quantile(contamination):
            return calibration.scores.cut(contamination * calibration.scores.count)
        case Budget():
            return _choose_by_budget(policy, calibration)
        case FBeta(beta):
            return _choose_by_labels(calibration, partial(_measure_f_beta, beta))
        case Cost(false_positive, false_negative):
            return _choose_by_labels(
                calibration, partial(_measure_savings, false_positive, false_negative)
            )
        case ExtremeValue():
            return _choose_by_tail(policy, calibration.scores)


@dataclass(frozen=True)
class Threshold:
    """A threshold as an artefact of its own: it is made, compared and rolled back without a GPU.

    Raises Refusal for a value that float32 does not hold exactly.
    """

    value: float
    policy: dict[str, Any]  # as `describe` returns it
    bundle: str  # id of the bundle whose scores it divides
    calibration: str  # SHA-256 of the calibration that it was chosen on

    def __post_init__(self) -> None:
        if not np.isfinite(self.value) or float(np.float32(self.value)) != self.value:
            raise Refusal(
                f"expected a threshold that float32 holds exactly; found {self.value}: "
                "choose it with a policy"
            )

    @classmethod
    def choose(cls, policy: Policy, calibration: Calibration, bundle: str) -> Self:
        """Choose the threshold of a policy for the bundle with that id."""
        return cls(choose(policy, calibration), describe(policy), bundle, calibration.digest)

    @property
    def id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of `to_json()`."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

    def flags(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which scores, [rows], are flags: those strictly above the threshold, in float32."""
        return np.asarray(scores, dtype=np.float32) > np.float32(self.value)

    def to_json(self) -> bytes:
        """The threshold as canonical JSON, without a date: equal thresholds have equal bytes."""
        return _encode(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The threshold that `to_json` wrote. Raises Refusal for any other bytes."""
        document = _parse(data, MAX_THRESHOLD_BYTES, "a threshold", set(cls.__annotations__))
        text = ("bundle", "calibration")
        if (
            type(document["value"]) is not float
            or not isinstance(document["policy"], dict)
            or not all(isinstance(document[name], str) for name in text)
        ):
            raise Refusal("expected a threshold; one of its fields has another type")
        return cls(**document)


def _choose_by_budget(policy: Budget, calibration: Calibration) -> float:
    rows, days = calibration.scores.count, calibration.days
    allowed = policy.flags * days
    if policy.per == "day_and_entity":
        if calibration.entities_per_day is None:
            raise Refusal(
                "expected a calibration with entities for a budget per day and entity; found none: "
                "give a column the role 'entity' and train again, or use a budget per day"
            )
        allowed *= calibration.entities_per_day
    if allowed > rows:
        raise Refusal(
            f"expected a budget of at most the rows of the calibration; found {allowed:,.0f} flags "
            f"for {rows:,} rows in {days:,g} days: lower the budget"
        )
    return calibration.scores.cut(allowed)


def _choose_by_labels(
    calibration: Calibration, merit: Callable[[_Rows, _Rows, _Rows], _Rows]
) -> float:
    """The threshold with the highest merit, a function of hits, false alarms and missed anomalies.

    Of equal thresholds the highest is chosen. It lies midway between two known scores, like a split
    of a decision tree.
    """
    normal, anomalous = calibration.normal, calibration.anomalous
    if normal is None or anomalous is None:
        raise Refusal(
            "expected a calibration with labels for this policy; found none: name a label column "
            "in the spec and train again, or use quantile, budget or extreme_value"
        )
    if not normal.count or not anomalous.count:
        raise Refusal(
            "expected normal and anomalous rows in the calibration; found "
            f"{normal.count:,} normal and {anomalous.count:,} anomalous: hold back other days, or "
            "use quantile, budget or extreme_value"
        )
    known = np.union1d(normal.values(), anomalous.values())
    low = np.concatenate(([np.nextafter(known[0], np.float32(-np.inf))], known))
    high = np.concatenate((known, known[-1:]))
    middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
    candidates = np.where(middle < high, middle, low)
    candidates = candidates[np.isfinite(candidates)]
    hits = anomalous.count_above(candidates).astype(float)
    false = normal.count_above(candidates).astype(float)
    merits = merit(hits, false, anomalous.count - hits)
    return float(candidates[len(merits) - 1 - int(np.argmax(merits[::-1]))])


def _measure_f_beta(beta: float, hits: _Rows, false: _Rows, missed: _Rows) -> _Rows:
    """F-beta (van Rijsbergen 1979): (1 + b²) TP / ((1 + b²) TP + b² FN + FP)."""
    weighted = (1 + beta**2) * hits
    return weighted / (weighted + beta**2 * missed + false)


def _measure_savings(
    false_positive: float, false_negative: float, hits: _Rows, false: _Rows, missed: _Rows
) -> _Rows:
    """The negative cost of the errors. A hit costs nothing."""
    return -(false_positive * false + false_negative * missed)


def _choose_by_tail(policy: ExtremeValue, scores: ScoreSketch) -> float:
    law = fit_tail(scores, int(policy.tail_fraction * scores.count))
    distinct = 0 if law is None else int((scores.values() > law.start).sum())
    if law is None or distinct < LEAST_EXCESSES:
        raise Refusal(
            f"expected at least {LEAST_EXCESSES} different scores in the upper "
            f"{policy.tail_fraction:g} of {scores.count:,} rows; found {distinct}: calibrate on "
            "more days, raise tail_fraction, or use quantile"
        )
    if policy.probability >= law.fraction:  # within the known scores: no law is needed
        return scores.cut(policy.probability * scores.count)
    with np.errstate(over="ignore"):
        value = float(np.float32(law.quantile(policy.probability)))
    if not np.isfinite(value):
        raise Refusal(
            f"expected a threshold within float32; the tail is too heavy (shape {law.shape:.2f}) "
            f"for a probability of {policy.probability:g}: raise it"
        )
    return value


def _check(name: str, value: float, below: float = float("inf")) -> None:
    if not 0 < value < below:
        bound = "" if below == float("inf") else f" and below {below:g}"
        raise Refusal(f"expected {name} above 0{bound}; found {value}")


def _encode(document: dict[str, Any]) -> bytes:
    return canonical_json.encode(document, ascii_only=True)


def _parse(data: bytes, limit: int, what: str, keys: set[str]) -> dict[str, Any]:
    if len(data) > limit:
        raise Refusal(f"expected {what} of at most {limit:,} bytes; found {len(data):,}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"expected {what}; it is not JSON ({error})") from error
    if not isinstance(document, dict) or set(document) != keys:
        raise Refusal(f"expected {what} with the fields {', '.join(sorted(keys))}; found others")
    return document
