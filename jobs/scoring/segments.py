"""Records of finished splits, many in one object: a run of 100,000 splits resumes in seconds."""

from collections.abc import Collection
from typing import Any

from cluster.lake.output.journal import Journal
from jobs.scoring.books import Account

# One object more for so many records: what a killed driver leaves without one is read in a second.
SEGMENT = 1000


class Compaction:
    """Adds up the records of a journal, and writes their sums down as segments.

    A segment stands beside the records that it sums, never in their place: they are what keeps a
    split from being recorded twice.
    """

    def __init__(self, journal: Journal, segment: int = SEGMENT) -> None:
        self.journal, self.segment = journal, segment
        self._pending = Account()

    def recover(self, splits: Collection[str]) -> Account:
        """The account of those of these splits that are done."""
        found = Account()
        missing = set(splits)
        for document in self.journal.segments():
            # Segments of drivers that ran side by side may share splits: one of them counts.
            if document["splits"].keys() <= missing:
                found.merge(Account.from_document(document))
                missing -= document["splits"].keys()
        for record in self.journal.records(missing, len(splits)):
            found.merge(self.add(record))
        return found

    def add(self, record: dict[str, Any]) -> Account:
        """The account of a split that was recorded."""
        one = Account.of(record)
        self._pending.merge(one)
        if len(self._pending.splits) == self.segment:
            self.journal.write_segment(self._pending.to_document())
            self._pending = Account()
        return one
