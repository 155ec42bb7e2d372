"""The status of a watch, from its records in the lake: the commit log and the last day's entry.

The records outlive every job and node, so an alert "nothing was committed by six" works even if no
job ever ran. The role `reporter` may read all of them. No row of a table is read.
"""

from datetime import UTC, datetime, time

from cluster.lake.days import to_date
from cluster.lake.output.table import read_commits
from cluster.lake.storage.store import Store
from jobs.monitoring.metric_names import Metric, Sample
from jobs.output import open_output
from jobs.report.document import REPORTS
from jobs.spec.spec import Spec
from jobs.terminal.console import warn
from models import canonical_json

_ENTRY = "/entry.json"


class WatchStatus:
    """The records of one watch at the last refresh."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._found: dict[Metric, float] = {}

    def refresh(self) -> None:
        """Read the records. If that fails, the only sample is LAKE_READABLE 0."""
        try:
            output = open_output(self.spec)
            self._found = _read_commits(output) | _read_last_day(output)
            self._found[Metric.LAKE_READABLE] = 1
        except Exception as error:  # no error here may end a run or an exporter
            warn(f"no metrics of {self.spec.name} from the lake", error)
            self._found = {Metric.LAKE_READABLE: 0}

    def collect(self) -> list[Sample]:
        """The samples of the records, and the limits of the spec's gates."""
        gates = self.spec.gates
        limits = {
            Metric.FLAG_RATE_LOWEST: gates.flag_rate[0],
            Metric.FLAG_RATE_HIGHEST: gates.flag_rate[1],
            Metric.QUARANTINE_LIMIT: gates.quarantine_rate,
        }
        found = {**limits, **self._found}
        return [Sample(metric, (self.spec.name,), value) for metric, value in found.items()]


def _read_commits(output: Store) -> dict[Metric, float]:
    logged = read_commits(output.child("flags"))
    found = {Metric.LAST_COMMIT: max((one.timestamp for one in logged), default=0) / 1000}
    if days := [midnight for one in logged if (midnight := _midnight(one.commit.day)) is not None]:
        found[Metric.LAST_DAY] = max(days)
    return found


def _read_last_day(output: Store) -> dict[Metric, float]:
    """The entry that the last run wrote beside its card, whether its day was committed or not."""
    reports = output.child(REPORTS)
    entries = [found for found in reports.list() if found.key.endswith(_ENTRY)]
    if not entries:
        return {}
    key = max(entries, key=lambda found: (found.modified, found.key)).key
    entry = canonical_json.decode(reports.read(key), f"{reports.uri}/{key}")
    found = {
        Metric.DAY_COMMITTED: float(entry["status"] == "committed"),
        Metric.DAY_END: datetime.fromisoformat(entry["when"]).timestamp(),
        Metric.DAY_DURATION: entry["seconds"],
        Metric.DAY_ROWS: entry["rows"],
        Metric.DAY_FLAGS: entry["flagged"],
        Metric.DAY_QUARANTINED: entry["quarantined"],
        Metric.FLAG_RATE: entry["flagged"] / max(1, entry["scored"]),
        Metric.QUARANTINE_RATE: entry["quarantined"] / max(1, entry["rows"]),
        Metric.THRESHOLD: entry["threshold"],
    }
    if entry["score_drift"] is not None:
        found[Metric.SCORE_DRIFT] = entry["score_drift"]
    return found


def _midnight(day: str) -> float | None:
    """Unix seconds at which the day begins in UTC; None for a day that is not a date."""
    when = to_date(day)
    return None if when is None else datetime.combine(when, time(), UTC).timestamp()
