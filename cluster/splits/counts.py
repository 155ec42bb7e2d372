"""Counts of what became of rows: the same from the admission of a split to the run card."""

from dataclasses import dataclass, fields
from typing import cast

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12


class CountsDocument(TypedDict):
    """`Counts` as JSON."""

    splits: int
    rows: int
    filtered: int
    scored: int
    quarantined: int
    flagged: int
    non_finite: int
    tasks: int
    retried: int
    resent: int
    checked_by_pages: int
    checked_by_store: int
    unchecked: int


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of some splits; `+` adds those of other splits.

    The books balance where `rows == filtered + scored + quarantined`.
    """

    splits: int = 0
    rows: int = 0
    filtered: int = 0  # left out by the spec's filter
    scored: int = 0
    quarantined: int = 0
    flagged: int = 0  # of the scored rows
    non_finite: int = 0  # scores that are NaN or infinite
    tasks: int = 0
    retried: int = 0  # tasks that took more than one attempt
    resent: int = 0  # requests that had to be sent to the store again
    # Bytes of the column chunks that were read, by what they were compared with.
    checked_by_pages: int = 0  # the checksums of their pages
    checked_by_store: int = 0  # the digest that the store has of their file
    unchecked: int = 0  # nothing

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, name) + getattr(other, name) for name in _NAMES))

    @property
    def unaccounted(self) -> int:
        """Rows that were neither filtered, scored nor quarantined: 0 where the books balance."""
        return self.rows - self.filtered - self.scored - self.quarantined

    def to_document(self) -> CountsDocument:
        return cast(CountsDocument, {name: getattr(self, name) for name in _NAMES})

    @classmethod
    def from_document(cls, document: CountsDocument) -> "Counts":
        return cls(**document)


_NAMES = tuple(field.name for field in fields(Counts))
