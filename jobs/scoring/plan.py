"""The tasks of a run as they were first written down, and which of them are done."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster.lake.input.looks import UnsettledInput
from cluster.lake.input.snapshot import Snapshot
from cluster.lake.input.splits import plan_tasks
from cluster.lake.output.journal import Journal
from cluster.scoring.receipt import Receipt
from cluster.splits.counts import Counts
from jobs.scoring.books import Books, RunBooks
from jobs.scoring.segments import Compaction
from models import canonical_json


class PlannedTask(NamedTuple):
    """A task of the plan, as text: as an object it takes three times the memory, and only the
    worker that is handed it needs more."""

    splits: int
    rows: int
    largest_split: int  # in uncompressed bytes
    text: str  # `Task.to_document` as JSON


@dataclass(frozen=True)
class Work:
    """The books of a run as they stand, and the tasks to do."""

    books: RunBooks
    todo: Sequence[PlannedTask]  # longest first, so that no straggler ends the run
    compaction: Compaction
    refused: list[Receipt] = field(default_factory=list)  # with splits that could not be read

    @property
    def rows(self) -> int:
        """Rows to score."""
        return sum(task.rows for task in self.todo)

    @property
    def largest_split(self) -> int:
        """Uncompressed bytes of the largest split to do."""
        return max((task.largest_split for task in self.todo), default=0)

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of a task to the books, and to the journal's segments if it stays."""
        self.books.add(receipt)
        if receipt.refused:
            self.refused.append(receipt)
        else:
            self.compaction.add(receipt)

    def require_settled(self) -> None:
        """Raise `UnsettledInput` where a split could not be read, and perhaps can be later."""
        rules = [r for receipt in self.refused for r in receipt.quarantine if not r.settled]
        if rules:
            files = sorted({f"{rule.file} ({rule.rule})" for rule in rules})
            named = ", ".join(files[:5]) + (f" and {len(files) - 5} more" if files[5:] else "")
            raise UnsettledInput(
                rules[0].rule,
                f"{len(files)} files of {self.books.snapshot.day} could not be read now: {named}; "
                "nothing was committed, and all other files are scored",
            )

    def record_refused(self) -> None:
        """Record what is about to be committed without the splits that could not be read.

        Raises `UnsettledInput` where another driver of this run has recorded something else.
        """
        for receipt in self.refused:
            recorded = self.compaction.journal.record(receipt.task, receipt.to_document())
            if recorded["attempt"] != receipt.attempt:
                raise UnsettledInput(
                    "changed",
                    f"another command scored task {receipt.task} of {self.books.snapshot.day} "
                    "meanwhile: nothing was committed",
                )


def open_work(
    taken: Snapshot,
    facts: dict[str, str],
    journal: Journal,
    find_lost: Callable[[Books], Collection[str]],
) -> Work:
    """The work of a run: what its journal says is done, and the rest to do.

    The plan is written to the journal, with these facts beside its tasks. A task that `find_lost`
    names is not done, whatever the journal says.
    """
    tasks, compaction = _plan(taken, facts, journal), Compaction(journal)
    splits = sum(task.splits for task in tasks.values())
    books = RunBooks(taken, Counts(tasks=len(tasks), splits=splits))
    recovered = compaction.recover(tasks.keys())
    if lost := find_lost(recovered):
        journal.discard(lost)
        compaction = Compaction(journal)
        recovered = compaction.recover(tasks.keys())
    books.merge(recovered)
    todo = [task for key, task in tasks.items() if key not in books.tasks]
    return Work(books, sorted(todo, key=lambda task: -task.rows), compaction)


def _plan(taken: Snapshot, facts: dict[str, str], journal: Journal) -> Mapping[str, PlannedTask]:
    """The tasks by their ids. A resumed run has the plan of the first: planning a million tasks
    anew would take as long as reading them."""
    lines = journal.read_plan()
    if lines is None:
        lines = journal.write_plan(facts, (task.to_document() for task in plan_tasks(taken)))
    return dict(_read_task(line, journal) for line in lines)


def _read_task(line: str, journal: Journal) -> tuple[str, PlannedTask]:
    task = canonical_json.decode(line.encode(), f"a task of the plan in {journal.store.uri}")
    splits = task["splits"]
    rows, size = sum(split["rows"] for split in splits), max(split["bytes"] for split in splits)
    return str(task["id"]), PlannedTask(len(splits), rows, size, line)
