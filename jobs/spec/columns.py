"""The columns of a spec: the roles of each column and the options of these roles."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import TypeAliasType

from jobs.spec.errors import key_errors, value_error
from jobs.spec.source import Key
from models.columns import (
    Audio,
    Boolean,
    Categorical,
    FeatureColumn,
    Image,
    IPAddress,
    Numeric,
    Port,
    Roles,
    Sequence,
    Text,
    Timestamp,
    TimeUnit,
    Vector,
    Video,
)
from models.suggestion import join_names, suggest

Role = TypeAliasType(
    "Role",
    Literal[
        "id",
        "time",
        "entity",
        "numeric",
        "categorical",
        "boolean",
        "ip",
        "port",
        "timestamp",
        "vector",
        "sequence",
        "image",
        "audio",
        "text",
        "video",
        "label",
        "kind",
        "keep",
    ],
)
ROLES: dict[Role, str] = {
    "id": "Names the row in flags. Several id columns name it together.",
    "time": "When the row happened: a timestamp, a date, text in ISO 8601, or a number since 1970 "
    "with its unit. One column at most.",
    "entity": "Who acted: a customer, a host, a terminal.",
    "numeric": "Feature: a number.",
    "categorical": "Feature: one of a set of values.",
    "boolean": "Feature: true or false.",
    "ip": "Feature: an IPv4 or IPv6 address; `-` is none.",
    "port": "Feature: a TCP or UDP port.",
    "timestamp": "Feature: the hour of the day and the day of the week, in UTC.",
    "vector": "Feature: numbers, the same count in each row, such as an embedding.",
    "sequence": "Feature: a list in the order of time, of events or of numbers.",
    "image": "Feature: a PNG, JPEG or WebP file.",
    "audio": "Feature: a WAV or FLAC file, turned into a spectrogram.",
    "text": "Feature: UTF-8 text, as its bytes in order and as hashed words and 3-grams.",
    "video": "Feature: a list of PNG, JPEG or WebP files in the order of time.",
    "label": "The answer for evaluation: 0 normal, 1 anomaly, or any values with those that are "
    "normal. Never a feature. One column at most.",
    "kind": "The type of an anomaly, for evaluation. Never a feature. One column at most.",
    "keep": "Copied into the flags.",
}
SIGNALS = ("vector", "sequence", "image", "audio", "text", "video")
FEATURES = ("numeric", "categorical", "boolean", "ip", "port", "timestamp", *SIGNALS)
PICTURED = {"sequence", "image", "audio", "video"}  # a flag may show them as a picture
ANSWERS = ("label", "kind")  # hidden from detectors
ONCE = ("time", "label", "kind")  # roles of one column at most

OPTIONS: dict[str, tuple[str, ...]] = {
    "time": ("unit",),
    "timestamp": ("unit",),
    "label": ("normal",),
    "numeric": ("scale", "log1p", "clip", "range"),
    "categorical": ("encoding", "max_values"),
    "ip": ("same_network_as", "prefix"),
    "port": ("top",),
    "sequence": ("max_values", "length", "keep"),
    "image": ("size", "channels"),
    "audio": ("sample_rate", "seconds", "mels"),
    "text": ("length", "ngrams"),
    "video": ("frames", "size"),
}

# The columns that the table of flags adds to those of the input.
FLAG_COLUMNS = (
    "score",
    "severity",
    "threshold",
    "reasons",
    "picture",
    "anomaly_id",
    "bundle",
    "run_id",
    "day",
)


class Frozen(BaseModel):
    """Base of the sections of a spec: immutable values without unknown keys.

    The text below a field is its description in docs/spec.md and in editors.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def as_tuple(value: Any) -> Any:
    """A YAML list as a tuple, which is immutable."""
    return tuple(value) if isinstance(value, list) else value


def _as_roles(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


class Column(Frozen):
    """One column: its roles, and the options of these roles.

    A column has at most one role that is a feature. An option without its role is an error.
    """

    role: Annotated[
        tuple[Role, ...],
        BeforeValidator(_as_roles, json_schema_input_type=Role | tuple[Role, ...]),
        Field(min_length=1),
    ]
    """One role or a list of roles."""
    sensitive: Literal["mask", "hmac"] | None = None
    """Hides the values in messages, reasons and pages. Flags carry a mask (the last four digits of
    a card number, nothing of other values) or a keyed digest, which is equal for equal values. The
    key is in the file that the environment variable ANOMARAY_HMAC_KEY_FILE names."""
    unit: TimeUnit | None = None
    """Unit of a time that is a number since 1970: s, ms, us or ns; null for a timestamp, a date or
    text in ISO 8601."""
    normal: Annotated[tuple[str | int, ...], BeforeValidator(as_tuple)] = ()
    """The values of a label that are normal, as [BENIGN]; all others are anomalies. Empty for
    a label of 0 and 1."""
    scale: Literal["standard", "robust", "quantile"] = "standard"
    """How values are scaled: by mean and deviation, by median and quartiles, or by rank."""
    log1p: bool = False
    """Takes the logarithm first: sign(x) · log(1 + |x|). For long tails, as of bytes or amounts."""
    clip: Annotated[float, Field(gt=0)] | None = 10.0
    """Bound on the scaled value; null for none."""
    range: Annotated[tuple[float | None, float | None], BeforeValidator(as_tuple)] = (None, None)
    """Lowest and highest allowed value; null for no bound. Rows outside go to the quarantine."""
    encoding: Literal["onehot", "embedding"] = "onehot"
    """One input for each value, or a learned vector for each value."""
    max_values: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """Number of distinct values, the most frequent ones. All others count as one value."""
    same_network_as: str | None = None
    """Another ip column. Adds a feature: are both addresses in one network?"""
    prefix: Annotated[int, Field(ge=1, le=32)] = 24
    """Bits of an IPv4 address that make a network. IPv6 uses 64."""
    top: Annotated[int, Field(ge=0, le=65536)] = 16
    """Number of ports with an input of their own, the most frequent ones."""
    keep: Literal["last", "first"] = "last"
    """Which steps to keep of a list that is longer than `length`."""
    length: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Sequence: steps; null for the length that 95% of the training rows have at most. Text: bytes;
    null for 256."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Height and width in pixels to which images are resized."""
    channels: Literal[1, 3] | None = None
    """1 for grey, 3 for RGB; null for grey if all training images are grey."""
    sample_rate: Annotated[int, Field(ge=1000, le=96_000)] = 8000
    """Hz to which the sound is resampled."""
    seconds: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    """Seconds of the sound that are used, from its start."""
    mels: Annotated[int, Field(ge=4, le=256)] = 40
    """Frequency bands of the spectrogram."""
    ngrams: Annotated[int, Field(ge=0, le=65536)] = 256
    """Bins that words and 3-grams are hashed into; 0 for none."""
    frames: Annotated[int, Field(ge=1, le=256)] = 8
    """Frames that are used, spread evenly over the video."""

    @model_validator(mode="after")
    def _check(self) -> "Column":
        if found := [*self._check_roles(), *self._check_sensitive(), *self._check_options()]:
            raise key_errors(found)
        return self

    def _check_roles(self) -> Iterator[tuple[Key, str]]:
        features = [role for role in self.role if role in FEATURES]
        if twice := {role for role in self.role if self.role.count(role) > 1}:
            yield ("role",), f"the role {min(twice)} is listed twice; remove one"
        elif len(features) > 1:
            yield ("role",), f"expected at most one feature role, found {join_names(features)}"
        for answer in ANSWERS:
            if answer in self.role and set(self.role) - {answer, "keep"}:
                others = join_names(role for role in self.role if role != answer)
                text = f"a {answer} is for evaluation only; expected no other role but keep"
                yield ("role",), f"{text}, found {others}"

    def _check_sensitive(self) -> Iterator[tuple[Key, str]]:
        shown = [role for role in self.role if role in ("time", *ANSWERS)]
        if self.sensitive and shown:
            text = f"reports show the values of a column with the role {shown[0]}"
            yield ("sensitive",), f"{text}; remove sensitive or the role"
        elif self.sensitive == "mask" and "id" in self.role:
            yield ("sensitive",), "a masked id no longer names a row; write sensitive: hmac"

    def _check_options(self) -> Iterator[tuple[Key, str]]:
        for option in dict.fromkeys(option for options in OPTIONS.values() for option in options):
            owners = [role for role, options in OPTIONS.items() if option in options]
            if option in self.model_fields_set and not set(owners) & set(self.role):
                text = f"{option} belongs to the role {' or '.join(owners)}"
                text = f"{text}, found {join_names(self.role)}"
                yield (option,), f"{text}; remove it or change the role"
        if len({type(value) for value in self.normal}) > 1:
            yield ("normal",), f"expected texts or whole numbers, found both: {list(self.normal)}"
        low, high = self.range
        if low is not None and high is not None and low >= high:
            yield ("range",), f"expected [low, high] with low < high, found {[low, high]}"

    def feature(self, name: str) -> FeatureColumn | None:
        """The feature that the encoder makes of the column; None if it has no feature role."""
        match next((role for role in self.role if role in FEATURES), None):
            case "numeric":
                low, high = self.range
                return Numeric(name, self.scale, self.log1p, self.clip, low, high)
            case "categorical":
                return Categorical(name, self.encoding, self.max_values)
            case "boolean":
                return Boolean(name)
            case "ip":
                return IPAddress(name, self.same_network_as, self.prefix)
            case "port":
                return Port(name, self.top)
            case "timestamp":
                return Timestamp(name, self.unit)
            case "vector":
                return Vector(name)
            case "sequence":
                return Sequence(name, self.max_values, self.length, self.keep)
            case "image":
                return Image(name, self.size, self.channels)
            case "audio":
                return Audio(name, self.sample_rate, self.seconds, self.mels)
            case "text":
                return Text(name, self.length or Text(name).length, self.ngrams)
            case "video":
                return Video(name, self.frames, self.size)
        return None


def check_columns(columns: dict[str, Column]) -> dict[str, Column]:
    """A pydantic validator: raises an error with all problems between the columns of a spec."""
    if not columns:
        raise value_error("at least one column")
    checks = (_check_features, _check_once, _check_names, _check_networks, _check_twins)
    if found := [problem for check in checks for problem in check(columns)]:
        raise key_errors(found)
    return columns


def _check_features(columns: dict[str, Column]) -> Iterator[tuple[Key, str]]:
    if not any(set(column.role) & set(FEATURES) for column in columns.values()):
        yield (), f"expected at least one feature (a role of {join_names(FEATURES)}), found none"


def _check_once(columns: dict[str, Column]) -> Iterator[tuple[Key, str]]:
    for role in ONCE:
        first, *more = [name for name, column in columns.items() if role in column.role] or [""]
        for name in more:
            text = f"expected one column with the role {role}, but {first!r} has it already"
            yield (name, "role"), text


def _check_names(columns: dict[str, Column]) -> Iterator[tuple[Key, str]]:
    for name, column in columns.items():
        flagged = set(column.role) & {"id", "time", "entity", "keep"}
        if not name or not name.isprintable():
            yield (name,), f"expected a name of printable characters, found {name!r}"
        elif flagged and name.lower() in FLAG_COLUMNS:
            text = f"the table of flags has its own column {name.lower()!r}"
            yield (name, "role"), f"{text}; remove the role {join_names(sorted(flagged))}"


def _check_networks(columns: dict[str, Column]) -> Iterator[tuple[Key, str]]:
    for name, column in columns.items():
        other = column.same_network_as
        addresses = [n for n, c in columns.items() if "ip" in c.role and n != name]
        if other is not None and other not in addresses:
            text = f"expected another column with the role ip ({join_names(addresses) or 'none'})"
            yield (name, "same_network_as"), f"{text}, found {other!r}{suggest(other, addresses)}"


def _check_twins(columns: dict[str, Column]) -> Iterator[tuple[Key, str]]:
    """Tables do not distinguish upper from lower case in the names of columns."""
    flagged = [n for n in collect_roles(columns).flagged if n.lower() not in FLAG_COLUMNS]
    for name in flagged:
        if twin := next((f for f in flagged if f != name and f.lower() == name.lower()), None):
            text = f"flags have the column {twin!r} too, which differs only in upper or lower case"
            yield (name,), f"{text}; take one of them out of the flags"


def collect_roles(columns: dict[str, Column]) -> Roles:
    """The columns of each role that is not a feature."""

    def having(role: str) -> tuple[str, ...]:
        return tuple(name for name, column in columns.items() if role in column.role)

    def one(role: str) -> str | None:
        return next(iter(having(role)), None)

    sensitive = frozenset(name for name, column in columns.items() if column.sensitive)
    signals = (name for name, column in columns.items() if set(column.role) & PICTURED)
    return Roles(
        id=having("id"),
        time=one("time"),
        entity=having("entity"),
        label=(label := one("label")),
        normal=columns[label].normal if label else (),
        kind=one("kind"),
        keep=having("keep"),
        sensitive=sensitive,
        keyed=frozenset(name for name in sensitive if columns[name].sensitive == "hmac"),
        pictured=tuple(name for name in signals if name not in sensitive),
        time_unit=columns[time].unit if (time := one("time")) else None,
    )
