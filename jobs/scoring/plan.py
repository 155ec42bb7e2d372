"""The plan of a run as it was first written down, and what of it is done."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import plan_tasks
from cluster.lake.output.journal import Journal
from jobs.scoring.books import Balance
from jobs.scoring.segments import Compaction
from models import canonical_json


class Planned(NamedTuple):
    """A task of the plan. The text stands for it: as an object it takes three times the memory,
    and only the actor that is handed it needs more."""

    rows: int
    bytes: int  # of its largest split, uncompressed
    text: str  # `Task.to_document` as JSON


def open_books(
    taken: Snapshot, facts: dict[str, Any], journal: Journal, compaction: Compaction
) -> tuple[Balance, list[Planned]]:
    """The books of a run as they stand, and the tasks to do, longest first, so that no straggler
    ends the run. `facts` stand beside the tasks in the plan."""
    tasks = _planned(taken, facts, journal)
    balance = Balance(taken, len(tasks))
    balance.merge(compaction.recover(tasks.keys()))
    todo = [task for key, task in tasks.items() if key not in balance.splits]
    return balance, sorted(todo, key=lambda task: -task.rows)


def _planned(taken: Snapshot, facts: dict[str, Any], journal: Journal) -> Mapping[str, Planned]:
    """The tasks by their ids, of the plan that counts: a resumed run has that of the first, and
    planning a million of them anew would take as long as reading them."""
    lines = journal.read_plan()
    if lines is None:
        lines = journal.write_plan(facts, (task.to_document() for task in plan_tasks(taken)))
    return dict(_read(line, journal) for line in lines)


def _read(line: str, journal: Journal) -> tuple[str, Planned]:
    task = canonical_json.decode(line.encode(), f"a task of the plan in {journal.store.uri}")
    rows = sum(split["rows"] for split in task["splits"])
    return str(task["id"]), Planned(rows, max(split["bytes"] for split in task["splits"]), line)
