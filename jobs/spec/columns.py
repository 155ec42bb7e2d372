"""The columns of a spec: one entry a column, its roles and the options of these roles."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from jobs.spec.errors import expected, problems
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
    Vector,
    Video,
)
from models.suggestion import join_names, suggest

Role = Literal[
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
]
ROLES: tuple[str, ...] = get_args(Role)
SIGNALS = ("vector", "sequence", "image", "audio", "text", "video")
FEATURES = ("numeric", "categorical", "boolean", "ip", "port", "timestamp", *SIGNALS)
PICTURED = {"sequence", "image", "audio", "video"}  # what a flag may show as a picture
ANSWERS = ("label", "kind")  # what a detector must not see
ONCE = ("time", "label", "kind")  # roles of one column at most

OPTIONS: dict[str, tuple[str, ...]] = {
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
    """Base of the parts of a spec: values that never change, and no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def as_tuple(value: Any) -> Any:
    """YAML lists as tuples, so that a spec is a value through and through."""
    return tuple(value) if isinstance(value, list) else value


def _roles(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


class Column(Frozen):
    """One column: its role or roles, and the options of the feature that it is."""

    role: Annotated[tuple[Role, ...], BeforeValidator(_roles), Field(min_length=1)]
    # Its values are in no message, reason or page; what a flag carries of them is a mask (a card's
    # number keeps its last four digits) or a keyed digest.
    sensitive: Literal["mask", "hmac"] | None = None
    # numeric
    scale: Literal["standard", "robust", "quantile"] = "standard"
    log1p: bool = False
    clip: Annotated[float, Field(gt=0)] | None = 10.0  # bound on the scaled value
    range: Annotated[tuple[float | None, float | None], BeforeValidator(as_tuple)] = (None, None)
    # categorical
    encoding: Literal["onehot", "embedding"] = "onehot"
    # categorical, and sequence of events
    max_values: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    # ip
    same_network_as: str | None = None
    prefix: Annotated[int, Field(ge=1, le=32)] = 24
    # port
    top: Annotated[int, Field(ge=0, le=65536)] = 16
    # sequence
    keep: Literal["last", "first"] = "last"  # steps of a list that is longer than `length`
    # sequence: steps, None for what holds 95% of the training's; text: bytes, None for 256
    length: Annotated[int, Field(ge=1, le=65536)] | None = None
    # image, video
    size: Annotated[int, Field(ge=4, le=1024)] = 32  # height and width, in pixels
    # image
    channels: Literal[1, 3] | None = None  # None: 1 where all of the training's are grey
    # audio
    sample_rate: Annotated[int, Field(ge=1000, le=96_000)] = 8000  # Hz
    seconds: Annotated[float, Field(ge=0.05, le=600)] = 1.0
    mels: Annotated[int, Field(ge=4, le=256)] = 40
    # text
    ngrams: Annotated[int, Field(ge=0, le=65536)] = 256  # bins of hashed words; 0 for none
    # video
    frames: Annotated[int, Field(ge=1, le=256)] = 8

    @model_validator(mode="after")
    def _fits(self) -> "Column":
        if found := [*self._wrong_roles(), *self._wrong_disguise(), *self._wrong_options()]:
            raise problems(found)
        return self

    def _wrong_roles(self) -> list[tuple[Key, str]]:
        features = [role for role in self.role if role in FEATURES]
        found: list[tuple[Key, str]] = []
        if twice := {role for role in self.role if self.role.count(role) > 1}:
            found.append((("role",), f"the role {min(twice)} is there twice; remove one"))
        elif len(features) > 1:
            text = f"expected at most one kind of feature, found {join_names(features)}"
            found.append((("role",), text))
        for answer in ANSWERS:
            if answer in self.role and set(self.role) - {answer, "keep"}:
                text = f"a {answer} is the answer, for evaluation only; it has no role but 'keep'"
                others = join_names(role for role in self.role if role != answer)
                found.append((("role",), f"{text} beside it, found {others}"))
        return found

    def _wrong_disguise(self) -> list[tuple[Key, str]]:
        shown = [role for role in self.role if role in ("time", *ANSWERS)]
        if self.sensitive and shown:
            text = f"a column with the role {shown[0]} is shown as it is: by the hour, or by kind"
            return [(("sensitive",), f"{text}; remove sensitive or the role")]
        if self.sensitive == "mask" and "id" in self.role:
            return [(("sensitive",), "a masked id names no row any more; write sensitive: hmac")]
        return []

    def _wrong_options(self) -> list[tuple[Key, str]]:
        found: list[tuple[Key, str]] = []
        for option in dict.fromkeys(option for options in OPTIONS.values() for option in options):
            owners = [role for role, options in OPTIONS.items() if option in options]
            if option in self.model_fields_set and not set(owners) & set(self.role):
                text = f"{option} belongs to the role {' or '.join(owners)}"
                text = f"{text}, found {join_names(self.role)}"
                found.append(((option,), f"{text}; remove it or change the role"))
        low, high = self.range
        if low is not None and high is not None and low >= high:
            found.append((("range",), f"expected [low, high] with low < high, found {[low, high]}"))
        return found

    def feature(self, name: str) -> FeatureColumn | None:
        """What the encoder makes of the column; None where it is no feature."""
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
                return Timestamp(name)
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


def wrong_columns(columns: dict[str, Column]) -> list[tuple[Key, str]]:
    """What is wrong between the columns of a spec, each under its own key."""
    found: list[tuple[Key, str]] = []
    if not any(set(column.role) & set(FEATURES) for column in columns.values()):
        text = f"expected at least one feature (a role out of {join_names(FEATURES)}), found none"
        found.append(((), text))
    for role in ONCE:
        first, *more = [name for name, column in columns.items() if role in column.role] or [""]
        for name in more:
            text = f"expected one column with the role {role}, found it at {first!r} already"
            found.append(((name, "role"), text))
    for name, column in columns.items():
        found.extend(((name, *key), text) for key, text in _wrong_name(name, column))
        other = column.same_network_as
        addresses = [n for n, c in columns.items() if "ip" in c.role and n != name]
        if other is not None and other not in addresses:
            text = f"expected another column with the role ip ({join_names(addresses) or 'none'})"
            near = suggest(other, addresses)
            found.append(((name, "same_network_as"), f"{text}, found {other!r}{near}"))
    flagged = [name for name in roles(columns).flagged if name.lower() not in FLAG_COLUMNS]
    for name in flagged:
        if twin := next((f for f in flagged if f != name and f.lower() == name.lower()), None):
            text = f"a flag carries {twin!r} too, and tables do not tell upper from lower case"
            found.append(((name,), f"{text}; take one of them out of the flags"))
    return found


def _wrong_name(name: str, column: Column) -> list[tuple[Key, str]]:
    if not name or not name.isprintable():
        return [((), f"expected a name of printable characters, found {name!r}")]
    flagged = set(column.role) & {"id", "time", "entity", "keep"}
    if flagged and name.lower() in FLAG_COLUMNS:
        text = f"the table of flags has a column {name.lower()!r} of its own"
        return [(("role",), f"{text}; remove the role {join_names(sorted(flagged))}")]
    return []


def roles(columns: dict[str, Column]) -> Roles:
    """What the columns are for, besides feeding the detector."""

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
        label=one("label"),
        kind=one("kind"),
        keep=having("keep"),
        sensitive=sensitive,
        keyed=frozenset(name for name in sensitive if columns[name].sensitive == "hmac"),
        pictured=tuple(name for name in signals if name not in sensitive),
    )


def column_names(found: object) -> object:
    """The columns of a spec, checked against each other; used as a validator."""
    assert isinstance(found, dict)
    if not found:
        raise expected("at least one column")
    if wrong := wrong_columns(found):
        raise problems(wrong)
    return found
