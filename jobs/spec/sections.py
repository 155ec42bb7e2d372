"""The sections of a spec besides its columns, with their defaults and bounds."""

import ast
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from jobs.spec.columns import Frozen, as_tuple
from jobs.spec.errors import expected, problems


@dataclass(frozen=True)
class DayRange:
    """Days from first to last, both included; days are compared as text."""

    first: str
    last: str

    @classmethod
    def parse(cls, text: str) -> "DayRange":
        """`2026-01-01..2026-01-13`, or one day. Raises ValueError."""
        first, dots, last = text.partition("..")
        last = last if dots else first
        if not first or not last or first > last or ".." in last:
            raise ValueError(f"expected FIRST..LAST or one day, found {text!r}")
        return cls(first, last)

    def __contains__(self, day: object) -> bool:
        return isinstance(day, str) and self.first <= day <= self.last


def _uri(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise expected("a path, file://… or s3://bucket/prefix")
    if "://" not in text:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("file", "s3"):
        raise expected("a path, file://… or s3://bucket/prefix")
    if parts.scheme == "s3" and ("@" in parts.netloc or not parts.netloc):
        raise expected("s3://bucket/prefix, with the credentials in the AWS environment or profile")
    return text


def _filter(text: str) -> str:
    try:
        ast.parse(text, mode="eval")
    except (SyntaxError, ValueError) as error:
        raise expected(
            "a comparison of columns such as `label == 0 and proto != 'icmp'`"
        ) from error
    return text


def _days(text: str) -> str:
    try:
        DayRange.parse(text)
    except ValueError as error:
        raise expected("FIRST..LAST or one day, such as 2026-01-01..2026-01-13") from error
    return text


def _partition(text: str) -> str:
    if not text or not text.isprintable() or set(text) & set("/\\=") or text.startswith((".", "_")):
        raise expected("the key of the folders `key=value`, such as day")
    return text


def _name(text: str) -> str:
    if not text.replace("-", "_").isidentifier():
        raise expected("letters, digits, _ and -, starting with a letter")
    return text


def _band(band: tuple[float, float]) -> tuple[float, float]:
    if band[0] > band[1]:
        raise expected("[lowest, highest] with lowest <= highest")
    return band


Name = Annotated[str, AfterValidator(_name)]
URI = Annotated[str, AfterValidator(_uri)]
Filter = Annotated[str, AfterValidator(_filter)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Input(Frozen):
    """Where the rows are. A relative path is taken from the current folder."""

    uri: URI
    partition: Annotated[str, AfterValidator(_partition)] | None = None  # None: one day, `all`
    filter: Filter | None = None  # rows that are not in it are no input at all


class DetectorChoice(Frozen):
    """A name of `models.detectors.catalog` and options of that detector's `Config`; or auto, and
    options of `models.selection.auto.AutoConfig`."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _named(value: Any) -> Any:
    """`detector: auto` is short for `detector: {name: auto}`."""
    return {"name": value} if isinstance(value, str) else value


NamedDetector = Annotated[DetectorChoice, BeforeValidator(_named)]


class Training(Frozen):
    """What is learned from, and how the training loop goes about it."""

    uri: URI | None = None  # None: the input's
    filter: Filter | None = None  # beside the input's; `label == 0` for one-class training
    days: Annotated[str, AfterValidator(_days)] | None = None  # None: all but the newest
    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1  # share of the days held back
    workers: Count = 1  # DDP workers, at most
    min_workers: Count = 1  # a cluster that loses nodes goes on with so many
    epochs: Count = 30
    batch_rows: Count = 1024  # rows a step, all workers together
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05  # share of the steps
    patience: Count = 5  # epochs without a better validation loss
    clip_gradient: Positive | None = 1.0  # L2 norm
    trim: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # share of a batch, of highest loss, left out
    accumulate: Count = 1  # parts that a batch is computed in, to save memory
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    baselines: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("isolation_forest", "pca")
    # Whether a history of labels, late as they were, may be an input of those that learn without.
    earlier_labels: bool = False

    @property
    def day_range(self) -> DayRange | None:
        return None if self.days is None else DayRange.parse(self.days)


class QuantileThreshold(Frozen):
    policy: Literal["quantile"]
    contamination: OpenShare = 0.001


class BudgetThreshold(Frozen):
    policy: Literal["budget"]
    flags: Positive
    per: Literal["day", "day_and_entity"] = "day"


class FBetaThreshold(Frozen):
    policy: Literal["f_beta"]
    beta: Positive = 1.0


class CostThreshold(Frozen):
    policy: Literal["cost"]
    false_positive: Positive
    false_negative: Positive


class ExtremeValueThreshold(Frozen):
    policy: Literal["extreme_value"]
    probability: OpenShare = 1e-4
    tail_fraction: OpenShare = 0.02


THRESHOLDS = (
    QuantileThreshold,
    BudgetThreshold,
    FBetaThreshold,
    CostThreshold,
    ExtremeValueThreshold,
)
ThresholdChoice = Annotated[
    QuantileThreshold | BudgetThreshold | FBetaThreshold | CostThreshold | ExtremeValueThreshold,
    Field(discriminator="policy"),
]


class Output(Frozen):
    """Where the tables of the watch are written, and how much of them."""

    uri: URI
    scores: Literal["flags", "all"] = "flags"  # all: every row's score in a second table
    reasons: Annotated[int, Field(ge=0, le=100)] = 5  # features named in a flag


def _public_key(text: str) -> str:
    from cluster.lake.registry.signatures import public_key  # cryptography, which few specs need

    try:
        public_key(text)
    except ValueError as error:
        raise expected("ed25519:… as `python -m jobs keys` prints it") from error
    return text


class BundlePolicy(Frozen):
    """Which champions are let in."""

    signed: Literal["required", "optional"] = "optional"
    # Public keys of those who may promote.
    keys: Annotated[
        tuple[Annotated[str, AfterValidator(_public_key)], ...], BeforeValidator(as_tuple)
    ] = ()
    # The lowest number of a champion: raised after a key was lost, or a registry was rebuilt.
    at_least: Count = 1

    @model_validator(mode="after")
    def _fits(self) -> "BundlePolicy":
        if self.signed == "required" and not self.keys:
            raise problems([(("keys",), "expected the public keys of those who may sign")])
        return self


Band = Annotated[tuple[float, float], BeforeValidator(as_tuple), AfterValidator(_band)]


class Gates(Frozen):
    """Limits that stop a commit."""

    flag_rate: Annotated[tuple[Share, Share], BeforeValidator(as_tuple), AfterValidator(_band)] = (
        0.0,
        0.05,
    )
    quarantine_rate: Share = 0.01
    quarantined_files: Annotated[int, Field(ge=0)] = 0
    volume: Band | None = (0.5, 2.0)  # rows, as a multiple of the median of recent days


class Nightly(Frozen):
    """What `python -m jobs nightly` does by itself."""

    max_champion_age_days: Positive = 30.0
    first_day: Annotated[str, Field(min_length=1)] | None = None  # earlier days are left alone


Event = Literal["committed", "refused", "failed"]


def _variable(text: str) -> str:
    if not (text.isidentifier() and text.isupper()):
        raise expected("the name of an environment variable that holds the URL, such as WEBHOOK")
    return text


class Alert(Frozen):
    """A message to a webhook. Its URL is a secret, and stands in the environment."""

    webhook: Annotated[str, AfterValidator(_variable)]
    when: Annotated[tuple[Event, ...], BeforeValidator(as_tuple)] = ("refused", "failed")


Alerts = Annotated[tuple[Alert, ...], BeforeValidator(as_tuple)]
