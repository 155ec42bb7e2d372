"""The metrics that Anomaray exports to Prometheus: every name with its description and labels.

No label holds a value of a column or a day, so the watches, verbs and stages bound the number of
series.
"""

from enum import Enum
from typing import Literal, NamedTuple


class Metric(Enum):
    """A metric: its name, its description, and its labels besides `watch`, which all have.

    Counters end in `_total` and cover all days that this process scores.
    """

    # While a day is scored.
    READ_ROWS = "anomaray_read_rows_total", "Rows read."
    READ_BYTES = (
        "anomaray_read_bytes_total",
        "Uncompressed bytes read, estimated as the share of the day's rows that were read.",
    )
    SCORED_ROWS = "anomaray_scored_rows_total", "Rows scored."
    FILTERED_ROWS = "anomaray_filtered_rows_total", "Rows that the spec's filter removed."
    QUARANTINED_ROWS = "anomaray_quarantined_rows_total", "Rows that could not be scored."
    FLAGS = "anomaray_flags_total", "Rows above the threshold."
    RETRIED_TASKS = "anomaray_retried_tasks_total", "Tasks that needed more than one attempt."
    RESENT_REQUESTS = "anomaray_resent_requests_total", "Requests to the store that were repeated."
    ACTOR_SECONDS = (
        "anomaray_actor_seconds_total",
        "Seconds that the actors' threads spent in each stage; idle threads are not counted.",
        "stage",
    )
    SPLITS_PLANNED = "anomaray_splits_planned", "Splits of the day."
    SPLITS_DONE = "anomaray_splits_done", "Splits of the day that are done."
    TASKS_PLANNED = "anomaray_tasks_planned", "Tasks of the day; small splits share a task."
    TASKS_DONE = "anomaray_tasks_done", "Tasks of the day that are done."
    TASKS_QUEUED = "anomaray_tasks_queued", "Tasks of the day that are not done yet."
    ACTORS_PLANNED = "anomaray_actors_planned", "Actors that the run plans to use."
    ACTORS_RUNNING = "anomaray_actors_running", "Actors that are alive."
    ACTOR_WAIT = (
        "anomaray_actor_wait_ratio",
        "Share of the actors' time since the day began in which no thread scored or explained: the "
        "time that a GPU waits for data.",
    )

    # During and after a training.
    EPOCHS_PLANNED = (
        "anomaray_training_epochs_planned",
        "The most epochs that the training may run.",
    )
    EPOCHS_DONE = "anomaray_training_epochs_done", "Number of the last finished epoch."
    TRAINING_LOSS = "anomaray_training_loss", "Mean loss over the training rows in that epoch."
    VALIDATION_LOSS = (
        "anomaray_validation_loss",
        "Mean loss over the held-back rows after that epoch.",
    )

    # A night.
    DAYS_SKIPPED = (
        "anomaray_night_skipped",
        "Days, and folders of no day, that the night left out.",
    )
    DAYS_WAITING = "anomaray_night_waiting", "Days that no night will score as things are."
    DAYS_DELETED = "anomaray_night_deleted", "Committed days whose files were deleted since."

    # The verb that this process runs.
    RUN_ACTIVE = "anomaray_run_active", "1 while the verb runs, 0 after it ended.", "verb"
    RUN_DURATION = "anomaray_run_duration_seconds", "Seconds that the verb has run.", "verb"
    RUN_END = "anomaray_run_end_timestamp_seconds", "Unix time at which the verb ended.", "verb"
    RUN_SUCCESS = (
        "anomaray_run_success",
        "1 if the verb succeeded, 0 if it failed in whole or in part; absent until it ends.",
        "verb",
    )

    # The watch's records in the lake, whichever process wrote them.
    LAKE_READABLE = "anomaray_lake_readable", "1 if the watch's records could be read, else 0."
    LAST_COMMIT = (
        "anomaray_last_commit_timestamp_seconds",
        "Unix time of the last commit of flags; 0 before the first.",
    )
    LAST_DAY = (
        "anomaray_last_day_timestamp_seconds",
        "Unix time of midnight (UTC) of the newest committed day; absent if days are not dates.",
    )
    DAY_COMMITTED = (
        "anomaray_day_committed",
        "1 if the flags of the day that was scored last were committed, 0 if a gate refused them.",
    )
    DAY_END = "anomaray_day_end_timestamp_seconds", "Unix time at which scoring that day ended."
    DAY_DURATION = "anomaray_day_duration_seconds", "Seconds that scoring that day took."
    DAY_ROWS = "anomaray_day_rows", "Rows of that day."
    DAY_FLAGS = "anomaray_day_flags", "Flags of that day."
    DAY_QUARANTINED = (
        "anomaray_day_quarantined_rows",
        "Rows of that day that went to the quarantine.",
    )
    FLAG_RATE = "anomaray_flag_ratio", "Flags of that day as a share of its scored rows."
    FLAG_RATE_LOWEST = "anomaray_flag_ratio_lowest", "The least that gates.flag_rate allows."
    FLAG_RATE_HIGHEST = "anomaray_flag_ratio_highest", "The most that gates.flag_rate allows."
    QUARANTINE_RATE = (
        "anomaray_quarantine_ratio",
        "Quarantined rows of that day as a share of its rows.",
    )
    QUARANTINE_LIMIT = (
        "anomaray_quarantine_ratio_highest",
        "The most that gates.quarantine_rate allows.",
    )
    SCORE_DRIFT = (
        "anomaray_score_drift_ratio",
        "Distance of that day's scores from the champion's calibration (Kolmogorov-Smirnov): "
        "0 for equal distributions, 1 for distributions that do not overlap.",
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
    labels: tuple[str, ...]  # values, in the order of `metric.labels`
    value: float
