"""Show what a run would do before it does it: snapshot, splits, tasks, predicted cost."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from rich.table import Table

from cluster.lake.input.partitions import find_day
from cluster.lake.input.snapshot import Snapshot, take_snapshot
from cluster.lake.input.splits import Split, Task, plan_tasks
from cluster.lake.output.schemas import REGISTRY, RUNS
from cluster.lake.registry.registry import Registry
from cluster.runtime.resources import THREADS, Demand
from jobs import input_rows
from jobs.input_rows import DerivationPreview
from jobs.output import open_output
from jobs.spec.spec import Spec
from jobs.terminal.printable import escape_message
from models import canonical_json

_SHOWN = 50  # splits of the table


@dataclass(frozen=True)
class Prediction:
    """What a run is likely to cost."""

    memory_bytes: int  # of an actor
    rows_per_second: float | None
    seconds: float | None
    source: str  # of the rate, or the reason why there is none

    def to_document(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.memory_bytes,
            "rows_per_second": self.rows_per_second,
            "seconds": self.seconds,
            "from": self.source,
        }


@dataclass(frozen=True)
class Plan:
    """The snapshot of a day, its splits by task, and what to expect."""

    watch: str
    snapshot: Snapshot
    tasks: tuple[Task, ...]
    derived: DerivationPreview | None  # None for a spec that derives nothing
    predicted: Prediction

    @property
    def splits(self) -> int:
        return sum(len(task.splits) for task in self.tasks)

    def to_document(self) -> dict[str, Any]:
        taken = self.snapshot
        return {
            "watch": self.watch,
            "day": taken.day,
            "uri": taken.uri,
            "snapshot": taken.digest,
            "version": taken.version,
            "files": len(taken.files),
            "rejected": [
                {"key": file.key, "rule": file.rule, "message": file.message}
                for file in taken.rejected
            ],
            "stray": [asdict(one) for one in taken.stray],
            "rows": taken.rows,
            "bytes": taken.bytes,
            "splits": self.splits,
            "tasks": [task.to_document() for task in self.tasks],
            "derived": asdict(self.derived) if self.derived else None,
            "predicted": self.predicted.to_document(),
        }


def plan(spec: Spec, day: str) -> Plan:
    """Plan the scoring of a day, as `score` would; nothing is written."""
    day = find_day(spec.source(), day)
    derived = input_rows.preview_derivation(spec, spec.input.uri, day)
    if derived and derived.done:
        (taken,) = input_rows.take_snapshots(spec, spec.input.uri, [day])
    else:
        taken = take_snapshot(spec.source(), day)
    tasks = plan_tasks(taken)
    largest = max((split.bytes for task in tasks for split in task.splits), default=0)
    rate, source = _measured_rate(spec)
    seconds = None if rate is None else round(taken.rows / rate, 1)
    predicted = Prediction(Demand(largest).memory(THREADS), rate, seconds, source)
    return Plan(spec.name, taken, tasks, derived, predicted)


def _measured_rate(spec: Spec) -> tuple[float | None, str]:
    """Rows a second of the last run of this watch, and where that comes from."""
    output = open_output(spec)
    runs = output.child(RUNS)
    results = [found for found in runs.list("") if found.key.endswith("/result.json")]
    for found in sorted(results, key=lambda found: found.modified, reverse=True):
        document = canonical_json.decode(runs.read(found.key), f"{runs.uri}/{found.key}")
        if document.get("rows_per_second"):
            return float(document["rows_per_second"]), f"run {document['run_id']}"
    if Registry(output.child(REGISTRY)).read_champion() is None:
        return None, "no bundle yet: run `train` first"
    return None, "no run yet: the first one measures the rate"


def render_table(planned: Plan) -> Table:
    """The plan for a terminal."""
    taken, predicted = planned.snapshot, planned.predicted
    seconds = predicted.seconds
    table = Table(
        title=f"{planned.watch}, {escape_message(taken.day)}: {taken.rows:,} rows in "
        f"{len(taken.files):,} files, {taken.bytes / 1024**2:,.1f} MiB uncompressed, "
        f"{planned.splits:,} splits in {len(planned.tasks):,} tasks",
        caption=f"memory of an actor: about {predicted.memory_bytes / 1024**2:,.0f} MiB · time: "
        + (f"about {seconds:,.1f} s" if seconds is not None else "unknown")
        + f" ({predicted.source})"
        + "".join(f"\nset aside: {escape_message(file.message)}" for file in taken.rejected)
        + "".join(f"\nof no day: {escape_message(str(one))}" for one in taken.stray)
        + _describe_derived(planned.derived),
        title_justify="left",
        caption_justify="left",
    )
    for name in ("task", "split", "file", "row groups", "rows", "MiB"):
        table.add_column(name, justify="right" if name in ("rows", "MiB") else "left")
    for task, split in islice(_list_splits(planned), _SHOWN):
        groups = split.row_groups
        table.add_row(
            task,
            split.id,
            escape_message(split.key),
            f"{groups[0]}..{groups[-1]}" if len(groups) > 1 else str(groups[0]),
            f"{split.rows:,}",
            f"{split.bytes / 1024**2:,.1f}",
        )
    if planned.splits > _SHOWN:
        table.add_row("…", f"and {planned.splits - _SHOWN:,} more", "", "", "", "")
    return table


def _list_splits(planned: Plan) -> Iterator[tuple[str, Split]]:
    """The splits, each with the number of its task where a task begins, else with nothing."""
    for number, task in enumerate(planned.tasks, start=1):
        for place, split in enumerate(task.splits):
            yield "" if place else f"{number:,}", split


def _describe_derived(derived: DerivationPreview | None) -> str:
    """One more line, on the rows that are derived first."""
    if derived is None:
        return ""
    past = derived.looks_back_on
    back = f"looking back on {len(past)} days from {past[0]}" if past else "looking back on no day"
    cost = "done before" if derived.done else f"{derived.rows_to_read:,} rows to read"
    return f"\nderived first: {len(derived.columns)} columns, {back}; {cost}"
