"""How a watch stands, by its records in the lake: the commit log and the entry of its last day.

They outlive every job and every node, so "nothing was committed by six" can be told even where no
job ever ran. Only what the role `reporter` may read is read, and no row of any table.
"""

from datetime import UTC, date, datetime, time

from cluster.lake import canonical_json
from cluster.lake.output.table import commits
from cluster.lake.storage.opening import open_store
from cluster.lake.storage.store import Store
from jobs.monitoring.metric_names import Measure, Sample
from jobs.report.document import REPORTS
from jobs.spec.spec import Spec
from jobs.terminal.console import say
from jobs.terminal.printable import said

_ENTRY = "/entry.json"


class Standing:
    """The records of one watch, as they were at the last look."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._found: dict[Measure, float] = {}

    def look(self) -> None:
        """Read the records. Where they cannot be read, that is all that is known."""
        output = open_store(self.spec.output.uri)
        try:
            self._found = {**_committed(output), **_last_day(output), Measure.LAKE_READABLE: 1}
        except Exception as error:  # whatever it is: a run goes on, and an exporter answers
            say(f"[yellow]no metrics of {self.spec.name} from the lake[/]: {said(str(error))}")
            self._found = {Measure.LAKE_READABLE: 0}

    def samples(self) -> list[Sample]:
        """What was found, and the limits that the spec sets."""
        gates = self.spec.gates
        limits = {
            Measure.FLAG_RATE_LOWEST: gates.flag_rate[0],
            Measure.FLAG_RATE_HIGHEST: gates.flag_rate[1],
            Measure.QUARANTINE_LIMIT: gates.quarantine_rate,
        }
        found = {**limits, **self._found}
        return [Sample(measure, (self.spec.name,), value) for measure, value in found.items()]


def _committed(output: Store) -> dict[Measure, float]:
    logged = commits(output.child("flags"))
    found = {Measure.LAST_COMMIT: max((one["timestamp"] for one in logged), default=0) / 1000}
    if days := [midnight for one in logged if (midnight := _midnight(one["day"])) is not None]:
        found[Measure.LAST_DAY] = max(days)
    return found


def _last_day(output: Store) -> dict[Measure, float]:
    """What the run that ended last left beside its card, committed or not."""
    reports = output.child(REPORTS)
    entries = [found for found in reports.list() if found.key.endswith(_ENTRY)]
    if not entries:
        return {}
    key = max(entries, key=lambda found: (found.modified, found.key)).key
    entry = canonical_json.decode(reports.read(key), f"{reports.uri}/{key}")
    found = {
        Measure.DAY_COMMITTED: float(entry["status"] == "committed"),
        Measure.DAY_END: datetime.fromisoformat(entry["when"]).timestamp(),
        Measure.DAY_DURATION: entry["seconds"],
        Measure.DAY_ROWS: entry["rows"],
        Measure.DAY_FLAGS: entry["flagged"],
        Measure.DAY_QUARANTINED: entry["quarantined"],
        Measure.FLAG_RATE: entry["flagged"] / max(1, entry["scored"]),
        Measure.QUARANTINE_RATE: entry["quarantined"] / max(1, entry["rows"]),
        Measure.THRESHOLD: entry["threshold"],
    }
    if entry["score_drift"] is not None:
        found[Measure.SCORE_DRIFT] = entry["score_drift"]
    return found


def _midnight(day: str) -> float | None:
    """Unix seconds at which the day begins in UTC; None for a day that is no date."""
    try:
        return datetime.combine(date.fromisoformat(day), time(), UTC).timestamp()
    except ValueError:
        return None
