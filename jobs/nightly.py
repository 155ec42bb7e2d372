"""The verbs that a scheduler calls: each does all that is due, once."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from cluster.lake.input.partitions import list_days
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.output.schemas import FLAGS, REGISTRY, flag_schema
from cluster.lake.output.table import LakeTable
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.runtime.session import session
from jobs.alerting import alerts
from jobs.champion import Champion, load_champion
from jobs.monitoring.live import LiveMetrics
from jobs.score import score
from jobs.scoring.result import RunResult
from jobs.spec.spec import DayRange, Spec
from jobs.terminal.console import say, warn
from jobs.train import TrainRequest, train
from models.bundle import open_bundle
from models.refusal import Refusal

TRAINING = "training"


@dataclass
class Night:
    """The results of a night."""

    trained: str | None = None  # id of the bundle that it trained
    results: list[RunResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # day, or TRAINING -> message

    @property
    def ok(self) -> bool:
        return not self.failed

    def to_document(self) -> dict[str, Any]:
        return {
            "trained": self.trained,
            "days": [result.to_document() for result in self.results],
            "failed": self.failed,
        }


def nightly(
    spec: Spec,
    *,
    address: str | None = None,
    single_writer: bool = False,
    sign_with: Path | None = None,
    metrics: LiveMetrics | None = None,
) -> Night:
    """Train when it is due, then score every complete day that is not committed, oldest first.

    It starts with the first day after those of the first training, or with `nightly.first_day`;
    `backfill` scores earlier days.
    """
    night = Night()
    metrics = metrics or LiveMetrics(spec.name, "nightly")
    registry = Registry(open_store(spec.output.uri).child(REGISTRY))
    champion = load_champion(spec, registry) if registry.list_entries() else None
    reason = _find_training_reason(spec, champion)
    with session(address):
        if reason:
            say(f"training: {reason}")
            _train(spec, champion, night, sign_with, metrics)
        first = _find_first_day(spec, registry)
        due = [
            day for day in list_complete_days(spec) if day >= first and not is_committed(spec, day)
        ]
        _score_all(spec, due, night, single_writer, metrics)
    metrics.failed = not night.ok
    if not reason and not due:
        say("nothing to do: every complete day is committed")
    return night


def backfill(
    spec: Spec,
    days: DayRange,
    *,
    address: str | None = None,
    single_writer: bool = False,
    metrics: LiveMetrics | None = None,
) -> Night:
    """Score the days of a range that are not committed; nothing is trained."""
    Registry(open_store(spec.output.uri).child(REGISTRY)).require_champion()
    there = [d for d in list_days(spec.input.uri, spec.input.partition) if d in days]
    if not there:
        raise Refusal(f"no day of {spec.input.uri} is from {days.first} to {days.last}")
    due = [day for day in there if not is_committed(spec, day)]
    night = Night()
    metrics = metrics or LiveMetrics(spec.name, "backfill")
    with session(address):
        _score_all(spec, due, night, single_writer, metrics)
    metrics.failed = not night.ok
    if not due:
        say("nothing to do: every day of the range is committed")
    return night


def _train(
    spec: Spec,
    champion: Champion | None,
    night: Night,
    sign_with: Path | None,
    metrics: LiveMetrics,
) -> None:
    """Train, or fail the night and go on with the champion. Without a champion the refusal is
    raised, as nothing can be scored."""
    try:
        night.trained = train(spec, TrainRequest(sign_with=sign_with), metrics).bundle
    except Refusal as error:
        alerts.send(spec, "failed", f"the training failed: {error}", job="train")
        if champion is None:
            raise
        night.failed[TRAINING] = str(error)
        warn("the training failed and the champion stays", error, "red")


def _score_all(
    spec: Spec, days: list[str], night: Night, single_writer: bool, metrics: LiveMetrics
) -> None:
    """Score each day; the night fails if one fails, but the others are scored."""
    for day in days:
        try:
            result = score(spec, day, single_writer=single_writer, metrics=metrics)
        except Refusal as error:
            warn(f"{day} was not scored", error, "red")
            night.failed[day] = str(error)
            alerts.send(spec, "failed", f"{day} was not scored: {error}", job="score", day=day)
            continue
        night.results.append(result)
        if result.status != "committed":
            night.failed[day] = "; ".join(result.failed_gates)
            warn(f"{day} is not committed", night.failed[day], "red")
            text = f"{day} is not committed: {night.failed[day]}"
            alerts.send(spec, "refused", text, job="score", **result.to_document())
        else:
            counts = result.counts
            text = f"{day}: {counts.flagged:,} flags of {counts.scored:,} scored rows, committed"
            say(text)
            alerts.send(spec, "committed", text, job="score", **result.to_document())


def _find_training_reason(spec: Spec, champion: Champion | None) -> str | None:
    """The reason why a training is due; None if it is not."""
    if champion is None:
        return "there is no champion yet"
    created = datetime.fromisoformat(champion.bundle.metadata["created"])
    age = datetime.now(UTC) - created
    limit = timedelta(days=spec.nightly.max_champion_age_days)
    if age > limit:
        return f"the champion is {age.days} days old, nightly.max_champion_age_days is {limit.days}"
    return None


def _find_first_day(spec: Spec, registry: Registry) -> str:
    if spec.nightly.first_day is not None:
        return spec.nightly.first_day
    if spec.training.uri is not None:
        return ""  # trained on other data: every day of the input is scored
    first = registry.list_entries()[0]
    bundle = open_bundle(registry.read_bundle(first.bundle), first.bundle)
    days: list[str] = bundle.metadata["training"]["days"]
    return max(days) + "\0"  # the first text after the last training day


def list_complete_days(spec: Spec) -> list[str]:
    """Days that get no more rows: dates before today (UTC), and days that are not dates."""
    today = datetime.now(UTC).date()
    there = list_days(spec.input.uri, spec.input.partition)
    return [day for day in there if (_parse_date(day) or date.min) < today]


def _parse_date(day: str) -> date | None:
    try:
        return date.fromisoformat(day)
    except ValueError:
        return None


def is_committed(spec: Spec, day: str) -> bool:
    """Whether the day's last commit was made from the files that the day has now.

    Only the day's own files count. A night does not score a day again because earlier days, on
    which it looks back, have changed; `score` does.
    """
    taken = take_snapshot(spec.input.uri, spec.input.partition, day)
    missing = set(spec.roles.flagged) - set(taken.schema.names)
    if not taken.files or missing:
        return False  # scoring it says what is wrong, and the other days are scored all the same
    schema = flag_schema(taken.schema, spec.roles)
    table = LakeTable(open_store(spec.output.uri).child(FLAGS), schema, FLAGS)
    return table.is_committed(day, taken.day_digest)
