"""How a watch stands, by its records in the lake: the commit log and the entry of its last day.

They outlive every job and every node, so "nothing was committed by six" can be told even where no
job ever ran. Only what the role `reporter` may read is read, and no row of any table.
"""

from datetime import UTC, date, datetime, time

from cluster.lake.output.table import read_commits
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.monitoring.metric_names import Metric, Sample
from jobs.report.document import REPORTS
from jobs.spec.spec import Spec
from jobs.terminal.console import warn
from models import canonical_json

_ENTRY = "/entry.json"


class WatchStatus:
    """The records of one watch, as they were at the last look."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._found: dict[Metric, float] = {}

    def refresh(self) -> None:
        """Read the records. Where they cannot be read, that is all that is known."""
        output = open_store(self.spec.output.uri)
        try:
            self._found = {**_committed(output), **_last_day(output), Metric.LAKE_READABLE: 1}
        except Exception as error:  # whatever it is: a run goes on, and an exporter answers
            warn(f"no metrics of {self.spec.name} from the lake", error)
            self._found = {Metric.LAKE_READABLE: 0}

    def collect(self) -> list[Sample]:
        """What was found, and the limits that the spec sets."""
        gates = self.spec.gates
        limits = {
            Metric.FLAG_RATE_LOWEST: gates.flag_rate[0],
            Metric.FLAG_RATE_HIGHEST: gates.flag_rate[1],
            Metric.QUARANTINE_LIMIT: gates.quarantine_rate,
        }
        found = {**limits, **self._found}
        return [Sample(metric, (self.spec.name,), value) for metric, value in found.items()]


def _committed(output: Store) -> dict[Metric, float]:
    logged = read_commits(output.child("flags"))
    found = {Metric.LAST_COMMIT: max((one["timestamp"] for one in logged), default=0) / 1000}
    if days := [midnight for one in logged if (midnight := _midnight(one["day"])) is not None]:
        found[Metric.LAST_DAY] = max(days)
    return found


def _last_day(output: Store) -> dict[Metric, float]:
    """What the run that ended last left beside its card, committed or not."""
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
    """Unix seconds at which the day begins in UTC; None for a day that is no date."""
    try:
        return datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()
    except ValueError:
        return None
