"""The verbs that a scheduler calls: each does all that is due, once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from cluster.lake.days import DayRange
from cluster.lake.input.partitions import BAD_NAME, find_days, list_days
from cluster.lake.input.snapshot import take_snapshot
from cluster.lake.output.committed import CommittedDays
from cluster.lake.output.schemas import REGISTRY
from cluster.lake.output.shard import day_folder
from cluster.lake.registry.registry import Registry
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Missing
from cluster.splits.engine import EngineName
from cluster.splits.opening import open_engine
from jobs.alerting import alerts
from jobs.champion import Champion, load_champion
from jobs.due import Skipped, choose_due
from jobs.due import describe as describe_skipped
from jobs.monitoring.live import LiveMetrics
from jobs.output import open_own_output
from jobs.report.document import REPORTS
from jobs.score import FAILURES, finish_card, score_days
from jobs.scoring.result import RunResult
from jobs.spec.spec import Spec
from jobs.terminal.console import say, warn
from jobs.train import TrainRequest, train
from models.bundle import read_facts
from models.masking import describe
from models.refusal import may_pass

TRAINING = "training"
_GONE = "committed before, and its files were deleted since: its flags stay; this is said once"
_NO_CARD = (
    "committed before, but without a run card, and its journal lacks something, or is of another "
    "spec or of other days before it: `score --day` scores it anew; this is said once"
)


@dataclass
class Night:
    """The results of a night."""

    trained: str | None = None  # id of the bundle that it trained
    results: list[RunResult] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # day, or TRAINING -> message
    skipped: list[Skipped] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)  # committed days whose files are gone
    notes: list[str] = field(default_factory=list)  # keys of what is said once, written when it is
    may_pass: bool = False  # whether one failed by a store or a mount, and may succeed later

    def fail(self, what: str, error: Exception) -> str:
        """Note that a day or the training failed; what may be told of it."""
        self.failed[what] = text = str(error) if isinstance(error, OSError) else describe(error)
        self.may_pass |= may_pass(error)
        return text

    @property
    def waiting(self) -> list[Skipped]:
        """Days that no later night will score."""
        return [one for one in self.skipped if one.waiting]

    @property
    def ok(self) -> bool:
        return not self.failed and not self.waiting

    def to_document(self) -> dict[str, Any]:
        return {
            "trained": self.trained,
            "days": [result.to_document() for result in self.results],
            "failed": self.failed,
            "skipped": [asdict(one) for one in self.skipped],
            "deleted": self.deleted,
        }


def nightly(
    spec: Spec,
    *,
    address: str | None = None,
    engine: EngineName | None = None,
    single_writer: bool = False,
    sign_with: Path | None = None,
    metrics: LiveMetrics | None = None,
) -> Night:
    """Train when it is due, then score every complete day that is not committed, oldest first.

    The days that the first champion learned from are left out; a day that arrives late, however
    old, is due. With `nightly.first_day`, all days from that one on are due, and no earlier one.
    What is left out is in `skipped`; the night fails if days wait that no night will score.
    """
    night = Night()
    metrics = metrics or LiveMetrics(spec.name, "nightly")
    registry = Registry(open_own_output(spec).child(REGISTRY))
    champion = load_champion(spec, registry) if registry.list_entries() else None
    reason = _find_training_reason(spec, champion)
    with open_engine(address, engine) as opened:
        if reason:
            say(f"training: {reason}")
            request = TrainRequest(sign_with=sign_with, engine=engine)
            _train(spec, champion, night, request, metrics)
        complete, night.skipped = choose_due(
            find_days(spec.source()),
            _list_learned_days(spec, registry),
            spec.nightly.first_day,
            datetime.now(UTC).date(),
        )
        due = _find_due(spec, complete, night)
        _report_skipped(spec, night, metrics)
        _score_all(spec, due, night, opened.name, single_writer, metrics)
    metrics.failed = not night.ok
    if not reason and not due and not night.failed:
        left = f"; {len(night.skipped):,} skipped" if night.skipped else ""
        say(f"nothing to do: every day that is due is committed{left}")
    return night


def backfill(
    spec: Spec,
    days: DayRange,
    *,
    address: str | None = None,
    engine: EngineName | None = None,
    single_writer: bool = False,
    metrics: LiveMetrics | None = None,
) -> Night:
    """Score the days of a range that are not committed; nothing is trained."""
    Registry(open_own_output(spec).child(REGISTRY)).require_champion()
    there = days.require(list_days(spec.source()), spec.input.uri)
    night = Night()
    metrics = metrics or LiveMetrics(spec.name, "backfill")
    due = _find_due(spec, there, night)
    _report_skipped(spec, night, metrics)
    with open_engine(address, engine) as opened:
        _score_all(spec, due, night, opened.name, single_writer, metrics)
    metrics.failed = not night.ok
    if not due and not night.failed:
        say("nothing to do: every day of the range is committed")
    return night


def _train(
    spec: Spec,
    champion: Champion | None,
    night: Night,
    request: TrainRequest,
    metrics: LiveMetrics,
) -> None:
    """Train, or fail the night and go on with the champion. Without a champion the refusal is
    raised, as nothing can be scored."""
    try:
        night.trained = train(spec, request, metrics).bundle
    except FAILURES as error:
        if champion is None:
            alerts.send(spec, "failed", f"the training failed: {describe(error)}", job="train")
            raise
        text = night.fail(TRAINING, error)
        alerts.send(spec, "failed", f"the training failed: {text}", job="train")
        warn("the training failed and the champion stays", text, "red")


def _score_all(
    spec: Spec,
    days: list[str],
    night: Night,
    engine: EngineName,
    single_writer: bool,
    metrics: LiveMetrics,
) -> None:
    """Score the days; the night fails if one fails, but the others are scored."""
    for day, result in score_days(
        spec, days, engine=engine, single_writer=single_writer, metrics=metrics
    ):
        if isinstance(result, Exception):
            _report_failed(spec, day, night.fail(day, result))
            continue
        night.results.append(result)
        if result.status != "committed":
            night.failed[day] = "; ".join(result.failed_gates)
            warn(f"{day} is not committed", night.failed[day], "red")
            text = f"{day} is not committed: {night.failed[day]}"
            alerts.send(spec, "refused", text, job="score", **result.to_document())
        else:
            _report_committed(spec, result)


def _report_committed(spec: Spec, result: RunResult) -> None:
    counts = result.counts
    text = f"{result.day}: {counts.flagged:,} flags of {counts.scored:,} scored rows, committed"
    say(text)
    alerts.send(spec, "committed", text, job="score", **result.to_document())


def _report_failed(spec: Spec, day: str, text: str) -> None:
    warn(f"{day} was not scored", text, "red")
    alerts.send(spec, "failed", f"{day} was not scored: {text}", job="score", day=day)


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


def _list_learned_days(spec: Spec, registry: Registry) -> frozenset[str]:
    """The days of the input that the first champion learned from."""
    if spec.trains_apart:
        return frozenset()
    first = registry.list_entries()[0]
    bundle = read_facts(registry.read_bundle(first.bundle), first.bundle)
    return frozenset(bundle.metadata["training"]["days"])


def _report_skipped(spec: Spec, night: Night, metrics: LiveMetrics) -> None:
    for line in describe_skipped([one for one in night.skipped if not one.waiting]):
        warn("skipped", line)
    metrics.record_skipped(len(night.skipped), len(night.waiting), len(night.deleted))
    if night.waiting:
        lines = describe_skipped(night.waiting)
        for line in lines:
            warn("waiting, and no night will score it", line, "red")
        text = f"{len(night.waiting):,} days wait that no night will score: {'; '.join(lines[:5])}"
        alerts.send(spec, "failed", text, job="nightly")
    reports = open_store(spec.output.uri).child(REPORTS)
    for note in night.notes:
        reports.create(note, b"{}")


def _find_due(spec: Spec, days: Sequence[str], night: Night) -> list[str]:
    """Those of the days that have to be scored. A day that cannot be looked at fails alone.

    A committed day without its run card gets that here. One that has no files any more is skipped,
    and named by the first night that sees it.
    """
    committed = CommittedDays(open_store(spec.output.uri))
    due = []
    for day in days:
        try:
            state = find_state(spec, day, committed)
            if state == "unaccounted":
                _finish_card(spec, committed, day, night)
            elif state == "deleted":
                night.deleted.append(day)
                _say_once(committed, day, "deleted", _GONE, night)
        except FAILURES as error:
            _report_failed(spec, day, night.fail(day, error))
            continue
        if state == "due":
            due.append(day)
    return due


def _finish_card(spec: Spec, committed: CommittedDays, day: str, night: Night) -> None:
    result = finish_card(spec, day)
    if result is not None:
        night.results.append(result)
        _report_committed(spec, result)
    else:
        _say_once(committed, day, "no-card", _NO_CARD, night)


def _say_once(committed: CommittedDays, day: str, what: str, reason: str, night: Night) -> None:
    """Name the day among the skipped, unless a night has said this of its last commit."""
    commit = committed.find_commit(day)
    run = commit.run_id if commit else "unknown"  # the log reaches back no further
    note = f"{day_folder(day)}/{what}-{run}.json"
    if not committed.output.child(REPORTS).exists(note):
        night.skipped.append(Skipped(day, reason))
        night.notes.append(note)


def find_state(
    spec: Spec, day: str, committed: CommittedDays
) -> Literal["due", "committed", "unaccounted", "deleted"]:
    """Whether the day was committed whole from the files that it has now, and has its run card.

    Only the day's own files count. A night does not score a day again because earlier days, on
    which it looks back, have changed; `score` does.
    """
    taken = take_snapshot(spec.source(), day)
    if not taken.files:
        others = {file.rule for file in taken.rejected} - {Missing.rule, BAD_NAME}
        deleted = not others and committed.has(day)
        # Scoring it says what is wrong, and the other days are scored all the same.
        return "deleted" if deleted else "due"
    if not committed.is_snapshot_whole(day, taken.day_digest):
        return "due"
    return "committed" if committed.is_accounted_for(day) else "unaccounted"
