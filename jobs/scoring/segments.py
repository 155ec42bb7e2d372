"""Segments of a journal: records of many tasks in one object, so that a run of 100,000 tasks
resumes in seconds."""

from collections.abc import Collection

from cluster.lake.output.journal import Journal
from cluster.scoring.receipt import Receipt
from jobs.scoring.books import Books

# Records in a segment. A killed driver leaves fewer than this without one, and they are read in a
# second.
SEGMENT = 1000


class Compaction:
    """Adds up the receipts of a journal, and writes their sums down as segments.

    A segment stands beside the records that it sums, never in their place: the records are what
    keeps a task from being recorded twice.
    """

    def __init__(self, journal: Journal, segment: int = SEGMENT) -> None:
        self.journal, self.segment = journal, segment
        self._pending = Books()

    def recover(self, tasks: Collection[str]) -> Books:
        """The books of those of these tasks that are done."""
        recovered = Books()
        missing = set(tasks)
        for document in self.journal.segments():
            # Segments of drivers that ran side by side may share tasks: one of them counts.
            if document["tasks"].keys() <= missing:
                recovered.merge(Books.from_document(document))
                missing -= document["tasks"].keys()
        for record in self.journal.records(missing, len(tasks)):
            receipt = Receipt.from_document(record)
            recovered.add(receipt)
            self.add(receipt)
        return recovered

    def add(self, receipt: Receipt) -> None:
        """Add the receipt of a task that was recorded."""
        self._pending.add(receipt)
        if len(self._pending.tasks) == self.segment:
            self.journal.write_segment(self._pending.to_document())
            self._pending = Books()
