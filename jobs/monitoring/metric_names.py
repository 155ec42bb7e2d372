"""What Anomaray exports to Prometheus: every name, with its help and its labels, once.

No label ever holds a value of a column, and none holds a day: there are as many series as there are
watches, verbs and stages.
"""

from enum import Enum
from typing import Literal, NamedTuple


class Metric(Enum):
    """Name, help, and the labels besides `watch`, which all have.

    Counters count what this process did, over all days that it does; they end in `_total`.
    """

    # While a day is scored.
    READ_ROWS = "anomaray_read_rows_total", "Rows that were read."
    READ_BYTES = (
        "anomaray_read_bytes_total",
        "Uncompressed bytes of the files that were read: the day's, by the share of its rows.",
    )
    SCORED_ROWS = "anomaray_scored_rows_total", "Rows that were scored."
    FILTERED_ROWS = "anomaray_filtered_rows_total", "Rows that the spec's filter left out."
    QUARANTINED_ROWS = "anomaray_quarantined_rows_total", "Rows that could not be scored."
    FLAGS = "anomaray_flags_total", "Rows above the threshold."
    RETRIED_SPLITS = "anomaray_retried_splits_total", "Splits that took more than one attempt."
    RESENT_REQUESTS = "anomaray_resent_requests_total", "Requests that the store was sent again."
    ACTOR_SECONDS = (
        "anomaray_actor_seconds_total",
        "Seconds of the actors' threads by what they did; those without a split are in none.",
        "stage",
    )
    SPLITS_PLANNED = "anomaray_splits_planned", "Splits of the day that is being scored."
    SPLITS_DONE = "anomaray_splits_done", "Splits of that day that were answered."
    SPLITS_QUEUED = "anomaray_splits_queued", "Splits handed to the actors and not yet answered."
    ACTORS_PLANNED = "anomaray_actors_planned", "Actors that the run has use and was planned for."
    ACTORS_RUNNING = "anomaray_actors_running", "Actors that are alive."
    ACTOR_WAIT = (
        "anomaray_actor_wait_ratio",
        "Share of the actors' time since the day began in which none of their threads scored or "
        "explained: what a GPU waits for data.",
    )

    # While a detector is trained, and after it.
    EPOCHS_PLANNED = "anomaray_training_epochs_planned", "Epochs that the training has at most."
    EPOCHS_DONE = "anomaray_training_epochs_done", "The last epoch that was finished."
    TRAINING_LOSS = "anomaray_training_loss", "Mean loss of that epoch over the training rows."
    VALIDATION_LOSS = "anomaray_validation_loss", "Mean loss after it over the held-back rows."

    # Of the verb that this process runs.
    RUN_ACTIVE = "anomaray_run_active", "1 while the verb runs, 0 when it has ended.", "verb"
    RUN_DURATION = "anomaray_run_duration_seconds", "How long the verb ran, up to now.", "verb"
    RUN_END = "anomaray_run_end_timestamp_seconds", "When the verb ended.", "verb"
    RUN_SUCCESS = (
        "anomaray_run_success",
        "1 where the verb did all that it was asked to, 0 where not; absent before it ended.",
        "verb",
    )

    # Of the lake: what stands there, whichever process did it.
    LAKE_READABLE = "anomaray_lake_readable", "1 where the watch's records could be read."
    LAST_COMMIT = (
        "anomaray_last_commit_timestamp_seconds",
        "When flags were last committed; 0 before the first commit.",
    )
    LAST_DAY = (
        "anomaray_last_day_timestamp_seconds",
        "Midnight (UTC) of the newest committed day; absent where days are no dates.",
    )
    DAY_COMMITTED = (
        "anomaray_day_committed",
        "Of the day that was scored last: 1 where its flags were committed, 0 where a gate "
        "refused them.",
    )
    DAY_END = "anomaray_day_end_timestamp_seconds", "When scoring that day ended."
    DAY_DURATION = "anomaray_day_duration_seconds", "How long scoring that day took."
    DAY_ROWS = "anomaray_day_rows", "Rows of that day."
    DAY_FLAGS = "anomaray_day_flags", "Flags of that day."
    DAY_QUARANTINED = "anomaray_day_quarantined_rows", "Rows of that day in the quarantine."
    FLAG_RATE = "anomaray_flag_ratio", "Flags of that day, as a share of its scored rows."
    FLAG_RATE_LOWEST = "anomaray_flag_ratio_lowest", "The least that gates.flag_rate allows."
    FLAG_RATE_HIGHEST = "anomaray_flag_ratio_highest", "The most that gates.flag_rate allows."
    QUARANTINE_RATE = "anomaray_quarantine_ratio", "Quarantine of that day, as a share of its rows."
    QUARANTINE_LIMIT = (
        "anomaray_quarantine_ratio_highest",
        "The most that gates.quarantine_rate allows.",
    )
    SCORE_DRIFT = (
        "anomaray_score_drift_ratio",
        "Distance of that day's scores from the champion's calibration (Kolmogorov-Smirnov): "
        "0 where they are distributed alike, 1 where they have nothing in common.",
    )
    THRESHOLD = "anomaray_score_threshold", "The score above which that day's rows were flagged."

    def __init__(self, full_name: str, description: str, *labels: str) -> None:
        self.full_name, self.description = full_name, description
        self.labels: tuple[str, ...] = ("watch", *labels)

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        return "counter" if self.full_name.endswith("_total") else "gauge"


class Sample(NamedTuple):
    """One number of one series."""

    metric: Metric
    labels: tuple[str, ...]  # in the order of the metric's own
    value: float
