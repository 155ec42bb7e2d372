"""From calibration scores to a threshold. A row is flagged when its score is above it, strictly."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models import canonical_json
from models.refusal import Refusal
from models.scores.extreme_values import LEAST_EXCESSES, fit_tail
from models.scores.sketch import ScoreSketch

_Rows = NDArray[np.float64]

# Three full sketches are 150 KB as JSON; a threshold is 300 bytes.
MAX_CALIBRATION_BYTES = 4 << 20
MAX_THRESHOLD_BYTES = 64 << 10


@dataclass(frozen=True)
class Calibration:
    """Scores of held-back rows, from which thresholds and severities are made."""

    scores: ScoreSketch  # of all rows, labelled or not
    normal: ScoreSketch | None = None  # of the rows labelled 0
    anomalous: ScoreSketch | None = None  # of the rows labelled 1
    days: float = 1  # that the rows stand for: half the rows of a day are half a day
    entities_per_day: float | None = None  # distinct entities on an average day

    def __post_init__(self) -> None:
        if self.scores.count == 0:
            raise Refusal("expected calibration scores; found no rows: hold back days with rows")
        if not 0 < self.days < float("inf"):
            raise Refusal(f"expected a calibration of more than 0 days; found {self.days}")
        if self.entities_per_day is not None and not 0 < self.entities_per_day < float("inf"):
            raise Refusal(f"expected entities a day above 0; found {self.entities_per_day}")

    @property
    def digest(self) -> str:
        """SHA-256 of `to_bytes`, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return _canonical(
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
        """The calibration of `to_bytes`. Raises `Refusal` for anything else."""
        document = _parse(data, MAX_CALIBRATION_BYTES, "a calibration", set(cls.__annotations__))
        days, entities = document["days"], document["entities_per_day"]
        if not isinstance(days, int | float) or not isinstance(entities, int | float | None):
            raise Refusal("expected a calibration; its days or entities a day are not numbers")
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
    """Flags at most `flags` rows a day on average, in all or for each entity.

    Both are averages over the calibration: one day, or one entity, may have more.
    """

    flags: float
    per: Literal["day", "day_and_entity"] = "day"

    def __post_init__(self) -> None:
        _check("flags", self.flags)
        if self.per not in ("day", "day_and_entity"):
            raise Refusal(f"expected per to be 'day' or 'day_and_entity'; found {self.per!r}")


@dataclass(frozen=True)
class FBeta:
    """Best F-beta on the labelled rows: recall counts `beta` times as much as precision."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        _check("beta", self.beta)


@dataclass(frozen=True)
class Cost:
    """Least cost on the labelled rows. Both costs in one unit, such as minutes or euros."""

    false_positive: float  # cost of a normal row flagged
    false_negative: float  # cost of an anomalous row not flagged

    def __post_init__(self) -> None:
        _check("false_positive", self.false_positive)
        _check("false_negative", self.false_negative)


@dataclass(frozen=True)
class ExtremeValue:
    """Flags a normal row with a chance of `probability`, extrapolated from the upper tail.

    Peaks over threshold, the initial step of SPOT (Siffer et al., KDD 2017): for a probability so
    small that few or no calibration rows lie above its threshold.
    """

    probability: float  # above 0 and below tail_fraction
    tail_fraction: float = 0.02  # share of the rows that the tail is fitted to; Siffer et al.: 2%

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
    """The policy as a JSON object: its name in `POLICIES` under "policy", and its fields."""
    name = next(name for name, kind in POLICIES.items() if type(policy) is kind)
    return {"policy": name, **asdict(policy)}


def choose(policy: Policy, calibration: Calibration) -> float:
    """The threshold that a policy asks for: a finite number that float32 holds exactly.

    Raises `Refusal` when the calibration lacks what the policy needs.
    """
    match policy:
        case Quantile(contamination):
            return calibration.scores.cut(contamination * calibration.scores.count)
        case Budget():
            return _by_budget(policy, calibration)
        case FBeta(beta):
            return _by_labels(calibration, partial(_f_beta, beta))
        case Cost(false_positive, false_negative):
            return _by_labels(calibration, partial(_savings, false_positive, false_negative))
        case ExtremeValue():
            return _by_tail(policy, calibration.scores)


@dataclass(frozen=True)
class Threshold:
    """A threshold as an artefact of its own: made, compared and rolled back without a GPU."""

    value: float
    policy: dict[str, Any]  # as `describe` gives it
    bundle: str  # id of the bundle whose scores it cuts
    created: str  # UTC, ISO 8601
    calibration: str  # SHA-256 of the calibration it was chosen on

    def __post_init__(self) -> None:
        if not np.isfinite(self.value) or float(np.float32(self.value)) != self.value:
            raise Refusal(
                f"expected a threshold that float32 holds exactly; found {self.value}: "
                "choose it with a policy"
            )

    @classmethod
    def choose(cls, policy: Policy, calibration: Calibration, bundle: str) -> Self:
        """The threshold that a policy asks for, made now, for the bundle of that id."""
        value = choose(policy, calibration)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(value, describe(policy), bundle, now, calibration.digest)

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the same for the same value, policy, bundle and calibration."""
        content = asdict(self)
        del content["created"]
        return hashlib.sha256(_canonical(content)).hexdigest()[:16]

    def flags(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which float32 scores, [rows], are flagged: those strictly above the threshold."""
        return np.asarray(scores, dtype=np.float32) > np.float32(self.value)

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return _canonical(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The threshold of `to_json`. Raises `Refusal` for anything else."""
        document = _parse(data, MAX_THRESHOLD_BYTES, "a threshold", set(cls.__annotations__))
        text = ("bundle", "created", "calibration")
        if (
            type(document["value"]) is not float
            or not isinstance(document["policy"], dict)
            or not all(isinstance(document[name], str) for name in text)
        ):
            raise Refusal("expected a threshold; a field of it has another type")
        return cls(**document)


def _by_budget(policy: Budget, calibration: Calibration) -> float:
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


def _by_labels(calibration: Calibration, merit: Callable[[_Rows, _Rows, _Rows], _Rows]) -> float:
    """The threshold of the highest merit of (hits, false alarms, missed), of equals the highest.

    It lies midway between two known scores, as a split of a decision tree does.
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
    hits, false = (
        anomalous.count_above(candidates).astype(float),
        normal.count_above(candidates).astype(float),
    )
    merits = merit(hits, false, anomalous.count - hits)
    return float(candidates[len(merits) - 1 - int(np.argmax(merits[::-1]))])


def _f_beta(beta: float, hits: _Rows, false: _Rows, missed: _Rows) -> _Rows:
    """F-beta (van Rijsbergen 1979): (1 + b²) TP / ((1 + b²) TP + b² FN + FP)."""
    weighted = (1 + beta**2) * hits
    return weighted / (weighted + beta**2 * missed + false)


def _savings(
    false_positive: float, false_negative: float, hits: _Rows, false: _Rows, missed: _Rows
) -> _Rows:
    """The cost of the errors, negated; a hit costs nothing."""
    return -(false_positive * false + false_negative * missed)


def _by_tail(policy: ExtremeValue, scores: ScoreSketch) -> float:
    law = fit_tail(scores, int(policy.tail_fraction * scores.count))
    distinct = 0 if law is None else int((scores.values() > law.start).sum())
    if law is None or distinct < LEAST_EXCESSES:
        raise Refusal(
            f"expected at least {LEAST_EXCESSES} different scores in the upper "
            f"{policy.tail_fraction:g} of {scores.count:,} rows; found {distinct}: calibrate on "
            "more days, raise tail_fraction, or use quantile"
        )
    if policy.probability >= law.fraction:  # inside the rows that the sketch knows
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


def _canonical(document: dict[str, Any]) -> bytes:
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
