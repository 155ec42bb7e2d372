"""The sections of a spec other than its columns, with their defaults and bounds."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from cluster.lake.days import DayRange, name_day
from cluster.lake.input.filter_syntax import read_syntax
from cluster.lake.input.layout import parse_layout
from cluster.lake.storage.opening import find_place
from jobs.spec.columns import Frozen, as_tuple
from jobs.spec.errors import key_errors, value_error
from models.refusal import Refusal


def _check_uri(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise value_error("a path, file://… or s3://bucket/prefix")
    if "://" not in text:
        return text
    parts = urlsplit(text)
    if parts.scheme not in ("file", "s3"):
        raise value_error("a path, file://… or s3://bucket/prefix")
    if parts.scheme == "s3" and ("@" in parts.netloc or not parts.netloc):
        raise value_error("s3://bucket/prefix, with credentials in the AWS environment or profile")
    try:
        find_place(text)
    except Refusal as refusal:
        raise value_error(f"a place: {refusal}") from refusal
    return text


def _check_filter(text: str) -> str:
    try:
        read_syntax(text)
    except Refusal as refusal:
        raise value_error(
            "a comparison of columns such as `label == 0 and proto != 'icmp'`"
        ) from refusal
    return text


def _check_days(text: str) -> str:
    try:
        DayRange.parse(text)
    except ValueError as error:
        raise value_error("FIRST..LAST or one day, such as 2026-01-01..2026-01-13") from error
    return text


def _check_day(text: str) -> str:
    try:
        name_day(text)
    except Refusal as refusal:
        raise value_error("a whole day, such as 2026-01-01") from refusal
    return text


def _as_text(value: Any) -> Any:
    """A day of digits, which YAML takes for a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_partition(partition: str | tuple[str, ...]) -> str | tuple[str, ...]:
    try:
        parse_layout(partition)
    except ValueError as error:
        raise value_error(str(error)) from error
    return partition


def _as_partition(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_name(text: str) -> str:
    if not text.replace("-", "_").isidentifier():
        raise value_error("letters, digits, _ and -, starting with a letter")
    return text


def _check_count(count: int) -> int:
    if count >= 2**31:  # torch and Arrow count in 32 or 64 bits
        raise value_error("a whole number below 2,147,483,648")
    return count


def _check_band(band: tuple[float, float]) -> tuple[float, float]:
    if band[0] > band[1]:
        raise value_error("[lowest, highest] with lowest <= highest")
    return band


Partition = Annotated[
    str | tuple[str, ...], BeforeValidator(_as_partition), AfterValidator(_check_partition)
]
DayText = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int)]
Name = Annotated[str, AfterValidator(_check_name)]
URI = Annotated[str, AfterValidator(_check_uri)]
Filter = Annotated[str, AfterValidator(_check_filter)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1), AfterValidator(_check_count)]


class Input(Frozen):
    """Where the rows are."""

    uri: URI
    """A Parquet file, a folder of them, or a Delta table: a path, file://… or s3://bucket/prefix. A
    relative path starts at the current folder. A Delta table is read at its newest version, as its
    log says; one with deletion vectors or column mapping, an Iceberg and a Hudi table are refused.
    """
    partition: Partition | None = None
    """How folders name days: a key of folders `key=value` (`day`), keys that form a date (`[year,
    month, day]`, with or without an hour), or a pattern (`%Y/%m/%d`, `dt=%Y%m%d/hour=%H`). Other
    keys are columns of text. Of a Delta table they are columns that it is partitioned by. With
    hours, a day is complete when its hour 23 is there. Null for one day named `all`, which is
    scored again when its files change."""
    values: Literal["date", "integer", "text"] | None = None
    """What the values of a single key are; null for dates if there are any, else integers, else
    texts. Other values are set aside."""
    filter: Filter | None = None
    """The rows to read, such as `label == 0 and proto in ("tcp", "udp")`. Allowed are comparisons,
    `in`, `is None`, `and`, `or`, `not` and `column('a name with spaces')`. A comparison with null
    is not true. A time, by its type or its role, is compared with text in ISO 8601, in UTC where it
    has no zone: `ts >= "2026-11-20"`. `time(column, "s")` makes a time of another column."""


class DetectorChoice(Frozen):
    """The detector and its options. docs/detectors.md compares the detectors.

    `detector: knn` is short for `detector: {name: knn}`. `auto` tries a few detectors on a sample
    of the training rows and keeps the best; it tries none of other packages.

    A detector of another package has the name of its entry point, such as `my_pkg.sliding`, or is
    written as MODULE:CLASS, which the operator must allow in ANOMARAY_DETECTORS: see
    docs/detectors.md.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    """A detector, or `auto`."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _as_choice(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


NamedDetector = Annotated[
    DetectorChoice, BeforeValidator(_as_choice, json_schema_input_type=str | DetectorChoice)
]


class Training(Frozen):
    """Which rows the detector learns from, and how it is trained."""

    uri: URI | None = None
    """Where the training rows are; null for `input.uri`."""
    filter: Filter | None = None
    """The rows to learn from, of those that pass `input.filter`. `label == 0` learns from normal
    rows only."""
    days: Annotated[DayText, AfterValidator(_check_days)] | None = None
    """FIRST..LAST, both included, or one day; null for all days before the newest with rows."""
    validation: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Share of the days that is held back for validation and the threshold."""
    workers: Count = 1
    """Most workers that train together (DDP)."""
    min_workers: Count = 1
    """Fewest workers that go on training after the cluster lost nodes."""
    epochs: Count = 30
    """Most passes over the training rows."""
    batch_rows: Count = 1024
    """Rows of a step over all workers, at most. Small data gets smaller batches."""
    learning_rate: Positive = 1e-3
    """Highest learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of the optimiser."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps over which the learning rate rises."""
    patience: Count = 5
    """Epochs without a lower validation loss before the training stops."""
    clip_gradient: Positive | None = 1.0
    """Largest L2 norm of a gradient; null for no limit."""
    trim: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of each batch, the rows of highest loss, that is not learned from. For training rows
    that hold anomalies: about twice their share."""
    accumulate: Count = 1
    """Parts in which a batch is computed one after another, to save memory."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of all random numbers."""
    baselines: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ("isolation_forest", "pca")
    """Detectors that are trained as well, for comparison by `evaluate`."""
    earlier_labels: bool = False
    """Allows a history of labels as a feature of detectors that learn without labels."""

    @property
    def day_range(self) -> DayRange | None:
        return None if self.days is None else DayRange.parse(self.days)


class QuantileThreshold(Frozen):
    """Flags at most a share of the held-back rows."""

    policy: Literal["quantile"]
    contamination: OpenShare = 0.001
    """Share of the rows to flag: 0.001 is 1 flag in 1,000 rows."""


class BudgetThreshold(Frozen):
    """Flags at most a number of rows a day, on average."""

    policy: Literal["budget"]
    flags: Positive
    """Number of flags."""
    per: Literal["day", "day_and_entity"] = "day"
    """Whether the number is for the day or for each entity of the day."""


class FBetaThreshold(Frozen):
    """Takes the threshold with the best F-beta on labelled held-back rows."""

    policy: Literal["f_beta"]
    beta: Positive = 1.0
    """How many times as much recall counts as precision."""


class CostThreshold(Frozen):
    """Takes the threshold with the lowest cost on labelled held-back rows."""

    policy: Literal["cost"]
    false_positive: Positive
    """Cost of a false alarm, in any unit."""
    false_negative: Positive
    """Cost of a missed anomaly, in the same unit."""


class ExtremeValueThreshold(Frozen):
    """Extrapolates the upper tail of the scores (a generalised Pareto distribution)."""

    policy: Literal["extreme_value"]
    probability: OpenShare = 1e-4
    """Chance that a normal row is flagged."""
    tail_fraction: OpenShare = 0.02
    """Share of the held-back scores that are the tail."""


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
    """Where the tables of the watch are written."""

    uri: URI
    """A folder or s3://bucket/prefix outside of the input."""
    scores: Literal["flags", "all"] = "flags"
    """`all` also writes the score of every row, to a second table."""
    reasons: Annotated[int, Field(ge=0, le=100)] = 5
    """Most reasons of a flag."""


def _check_key(text: str) -> str:
    from cluster.lake.registry.signatures import parse_public_key  # imports cryptography

    try:
        parse_public_key(text)
    except ValueError as error:
        raise value_error("ed25519:… as the verb `keys` prints it") from error
    return text


class BundlePolicy(Frozen):
    """Which champions may score."""

    signed: Literal["required", "optional"] = "optional"
    """`required` accepts only champions that are signed with one of `keys`."""
    keys: Annotated[
        tuple[Annotated[str, AfterValidator(_check_key)], ...], BeforeValidator(as_tuple)
    ] = ()
    """Public keys of those who may promote, as `python -m jobs keys` prints them."""
    at_least: Count = 1
    """Lowest accepted number of a champion. Raise it after a key was lost or a registry rebuilt."""

    @model_validator(mode="after")
    def _check(self) -> "BundlePolicy":
        if self.signed == "required" and not self.keys:
            raise key_errors([(("keys",), "expected the public keys of those who may sign")])
        return self


Band = Annotated[tuple[float, float], BeforeValidator(as_tuple), AfterValidator(_check_band)]


class Gates(Frozen):
    """Checks of a scored day. If one fails, nothing is committed."""

    flag_rate: Annotated[
        tuple[Share, Share], BeforeValidator(as_tuple), AfterValidator(_check_band)
    ] = (0.0, 0.05)
    """Lowest and highest share of flagged rows."""
    quarantine_rate: Share = 0.01
    """Highest share of rows in the quarantine."""
    quarantined_files: Annotated[int, Field(ge=0)] = 0
    """Most files in the quarantine."""
    volume: Band | None = (0.5, 2.0)
    """Lowest and highest number of rows, as a multiple of the median of recent days; null for
    any."""


class Nightly(Frozen):
    """What `python -m jobs nightly` does on its own."""

    max_champion_age_days: Positive = 30.0
    """Days after which a new champion is trained."""
    first_day: Annotated[DayText, Field(min_length=1), AfterValidator(_check_day)] | None = None
    """First day to score; null for all days but those that the first champion learned from."""


Event = Literal["committed", "refused", "failed"]


def _check_variable(text: str) -> str:
    if not (text.isidentifier() and text.isupper()):
        raise value_error("the name of an environment variable with the URL, such as WEBHOOK")
    return text


class Alert(Frozen):
    """A webhook that `nightly` and `backfill` send messages to.

    The URL is a secret, so it is in an environment variable. The operator lists the allowed hosts
    in ANOMARAY_WEBHOOK_HOSTS, such as `hooks.slack.com, *.bank.example`. For hosts outside of the
    internet it lists the address or network too: `10.20.0.0/16`.
    """

    webhook: Annotated[str, AfterValidator(_check_variable)]
    """Name of the environment variable that holds the URL."""
    when: Annotated[tuple[Event, ...], BeforeValidator(as_tuple)] = ("refused", "failed")
    """Events to send: a day was committed, was refused by a gate, or failed."""


Alerts = Annotated[tuple[Alert, ...], BeforeValidator(as_tuple)]
