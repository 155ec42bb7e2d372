"""The document behind a run card: plain JSON, the same facts for people and machines.

`jobs/report/run_card.py` assembles it, `jobs/report/pages.py` draws it. Times are ISO 8601 in UTC.
Parts that do not apply to a run are None or empty. Sensitive values are disguised already.
"""

import base64
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from cluster.splits.counts import CountsDocument
from models import canonical_json
from models.refusal import Refusal

T = TypeVar("T")
REPORTS = "reports"  # the folder of all cards, in a watch's output


def _decode_bytes(value: Any) -> Any:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


class Run(TypedDict):
    """What the run was asked to do and how it ended."""

    watch: str  # name of the spec
    day: str
    run_id: str
    status: Literal["committed", "refused"]
    started: str
    finished: str
    seconds: float
    rows_per_second: float
    command: str
    table_version: int | None  # None when refused
    input_version: int | None  # of the Delta table that was read; None for plain files


class Books(CountsDocument):
    """Where each row of the snapshot went (see `cluster.splits.counts.Counts`)."""

    files: int
    rejected_files: int
    bytes: int
    duplicate_ids: int  # of different splits, estimated; within a split they are quarantined


class Gate(TypedDict):
    """A condition of the commit."""

    name: str
    passed: bool
    message: str


class ThresholdFacts(TypedDict):
    """The cut-off and the policy that chose it."""

    value: float
    policy: dict[str, Any]  # name of the policy and its options
    id: str


class BundleFacts(TypedDict):
    """The detector that gave the scores."""

    id: str
    digest: str
    detector: str
    options: dict[str, Any]
    trained_days: list[str]
    created: str
    versions: dict[str, str]
    features: int
    parameters: int
    computed_by: str  # "onnx", or the device of torch: "cpu" or "cuda"
    started_from: str | None  # id of the bundle whose weights its training started from
    # `models.selection.auto.Choice.to_document()`, where the spec has `detector: auto`
    chosen: dict[str, Any] | None


class Histogram(TypedDict):
    """Rows by score; `edges` has one entry more than `counts`."""

    edges: list[float]
    counts: list[int]
    calibration_counts: list[int] | None  # of held-back rows of the training days


class FlagsOverTime(TypedDict):
    """Counts by the rows' own time; `bins` are the starts of equal intervals."""

    bins: list[str]
    flags: list[int]
    rows: list[int] | None


class EntityFlags(TypedDict):
    """One entity and how often it was flagged."""

    column: str
    value: Any
    flags: int
    max_severity: float


class Reason(TypedDict):
    """A row of the flags' `reasons` column."""

    feature: str
    contribution: float
    observed: str
    expected: str
    usual: str | None  # in training


class Picture(TypedDict):
    """The signal that added most to the score, and where in it: two panels."""

    feature: str
    # No text, so that nothing shortens it; base64 in JSON.
    png: Annotated[bytes, BeforeValidator(_decode_bytes)]


class FlagFacts(TypedDict):
    """One flag, with its columns by role."""

    severity: float
    score: float
    time: str | None
    id: dict[str, Any]
    entities: dict[str, Any]
    kept: dict[str, Any]


class TopFlag(FlagFacts):
    """One of the most severe flags."""

    reasons: list[Reason]
    picture: NotRequired[Picture | None]


class FlagLine(FlagFacts):
    """A flag in the table of all."""

    reason: Reason | None  # that added most to the score


class QuarantineEntry(TypedDict):
    """Rows, or a file, in the quarantine for one reason."""

    column: str | None
    file: str | None
    rule: str
    rows: int
    examples: list[int]  # row numbers in the file


class Epoch(TypedDict):
    """One pass over the training days."""

    epoch: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    rows_per_second: float


class Training(TypedDict):
    """How the bundle was trained."""

    epochs: list[Epoch]
    best_epoch: int | None
    seconds: float
    rows: int


class Estimate(TypedDict):
    """A measure with its 95% interval, or the reason why there is none."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None


class AtK(TypedDict):
    """Measures of the k highest scores."""

    k: int
    precision: Estimate
    recall: Estimate


class KindQuality(TypedDict):
    """One kind of anomaly against all normal rows."""

    kind: str
    rows: int
    recall: float
    auroc: float | None


class QualityDocument(TypedDict):
    """`models.scores.quality.Quality` as JSON."""

    rows: int
    anomalies: int
    threshold: float
    flagged: int
    found: int
    auroc: Estimate
    auprc: Estimate
    precision: Estimate
    recall: Estimate
    f1: Estimate
    at_k: list[AtK]
    kinds: list[KindQuality]
    resamples: int
    seed: int


class QualityFacts(TypedDict):
    """Quality of the run's detector, and of the baselines by name."""

    detector: QualityDocument
    baselines: dict[str, QualityDocument]


class ProfileFacts(TypedDict):
    """Seconds by stage: the driver's add up to the wall time, the actors' to threads times it."""

    seconds: float  # of the wall, up to the writing of the card
    threads: int  # of all actors together
    rows: int  # that these actors read
    driver: dict[str, float]  # with `other`
    actors: dict[str, float]  # with `idle`; empty where no stage was counted


class PoolFacts(TypedDict):
    """The actors that scored."""

    planned: int
    most: int  # that were there at once


class Card(TypedDict):
    """The whole document."""

    run: Run
    books: Books
    gates: list[Gate]
    threshold: ThresholdFacts
    bundle: BundleFacts
    score_histogram: Histogram | None
    flags_over_time: FlagsOverTime | None
    entities: list[EntityFlags]  # most flags first, ten at most
    top_flags: list[TopFlag]  # most severe first, twenty at most
    flags: list[FlagLine]  # most severe first, a few thousand at most
    quarantine: list[QuarantineEntry]
    training: Training | None
    quality: QualityFacts | None
    warnings: list[str]
    actors: NotRequired[PoolFacts | None]
    profile: NotRequired[ProfileFacts | None]


class DayEntry(TypedDict):
    """One line of the index page."""

    watch: str
    day: str
    status: Literal["committed", "refused"]
    rows: int
    flagged: int
    quarantined: int
    link: str  # path of the run card relative to the index page, not quoted
    run_id: str
    when: str  # when the run finished
    scored: int
    seconds: float  # of scoring
    threshold: float
    # Kolmogorov-Smirnov distance of the scores from the calibration; None without scores.
    score_drift: float | None


_CARD, _DAY_ENTRY = TypeAdapter(Card), TypeAdapter(DayEntry)


def parse_card(data: bytes, where: str) -> Card:
    """The card in the JSON of a run. Raises `Refusal`, which names `where`, for anything else."""
    return _parse(_CARD, "run card", data, where)


def parse_day_entry(data: bytes, where: str) -> DayEntry:
    """The entry in the JSON of a run. Raises `Refusal`, which names `where`, for anything else."""
    return _parse(_DAY_ENTRY, "entry", data, where)


def _parse(kind: TypeAdapter[T], name: str, data: bytes, where: str) -> T:
    document = canonical_json.decode(data, where)
    try:
        return kind.validate_python(document, strict=True)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()[:5])
        raise Refusal(
            f"{where}: expected the {name} of a day, found other values of {wrong}; remove the file"
        ) from None
