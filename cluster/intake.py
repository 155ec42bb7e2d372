"""Rows of a split, fit to be used: read, filtered, checked, encoded; the rest set aside by name.

Training, calibration, scoring and evaluation all take their rows from here, so that they cannot
differ in what they accept.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.distinct import KeySample, hashes
from cluster.lake import reading
from cluster.lake.snapshot import Split
from cluster.lake.store import Store
from models.columns import Roles
from models.encoder import Encoder, Extracted

# Measured in one thread: 16k rows a batch were read and encoded 1.2 times as fast as 64k.
BATCH_ROWS = 16_384


class SetAside(NamedTuple):
    """A row, or the whole split, that goes to the quarantine."""

    row: int | None  # row number in the file; None for a file that cannot be read
    column: str
    rule: str
    message: str = ""


class Lot(NamedTuple):
    """Good rows of one batch."""

    rows: pa.RecordBatch
    numbers: np.ndarray  # int64 [rows], row numbers in the file
    extracted: Extracted  # what the encoder made of them; aligned with `rows`


@dataclass
class Books:
    """What became of the rows of a split; `rows = filtered + set aside + good`."""

    rows: int = 0
    filtered: int = 0
    good: int = 0
    set_aside: list[SetAside] = field(default_factory=list)
    keys: KeySample = field(default_factory=KeySample)


@dataclass(frozen=True)
class Intake:
    """How the rows of a watch are read. Holds no state of a split: threads may share it."""

    input_uri: str
    encoder: Encoder
    roles: Roles
    filter: str | None = None
    carried: tuple[str, ...] = ()  # columns read beside the features

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.encoder.required, *self.roles.id, *self.carried)))

    def lots(self, split: Split, books: Books) -> Iterator[Lot]:
        """Good rows of the split in order; `books` is filled along the way."""
        store = Store.open(self.input_uri)
        seen: set[int] = set()
        books.rows = split.rows
        for batch, numbers in reading.read(
            store, split, self.columns, BATCH_ROWS, filter_text=self.filter
        ):
            extracted = self.encoder.extract(batch)
            keys = self._keys(batch)
            bad = self._bad(batch, extracted, keys, seen)
            for row, (column, rule) in sorted(bad.items()):
                books.set_aside.append(SetAside(int(numbers[row]), column, rule))
            lot = Lot(batch, numbers, extracted)
            if bad:
                keep = np.setdiff1d(np.arange(len(numbers)), list(bad), assume_unique=True)
                lot = take(lot, keep)
                keys = keys[keep] if keys is not None else None
            if keys is not None:
                books.keys.update(keys)
            books.good += lot.rows.num_rows
            if lot.rows.num_rows:
                yield lot
        books.filtered = books.rows - books.good - len(books.set_aside)

    def _keys(self, batch: pa.RecordBatch) -> np.ndarray | None:
        if not self.roles.id:
            return None
        return hashes([batch.column(name) for name in self.roles.id])

    def _bad(
        self,
        batch: pa.RecordBatch,
        extracted: Extracted,
        keys: np.ndarray | None,
        seen: set[int],
    ) -> dict[int, tuple[str, str]]:
        """Batch rows that cannot be used, each with the first rule that it breaks."""
        bad: dict[int, tuple[str, str]] = {}
        for name in self.roles.id:
            column = batch.column(name)
            if column.null_count:
                nulls = pc.is_null(column).to_numpy(zero_copy_only=False)
                bad.update({int(row): (name, "null_key") for row in np.flatnonzero(nulls)})
        for problem in extracted.problems:
            bad.setdefault(problem.row, (problem.column, problem.rule))
        if keys is not None:
            name = "+".join(self.roles.id)
            for row in _repeated(keys, seen):
                bad.setdefault(row, (name, "duplicate_id"))
        return bad


def _repeated(keys: np.ndarray, seen: set[int]) -> list[int]:
    """Rows whose key came before in the split. Two different ids share a 64-bit hash with
    probability below 1e-7 in a split of a million rows."""
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(keys), bool)
    repeated[first] = False
    values = keys.tolist()
    rows = np.flatnonzero(repeated).tolist()
    if seen:
        rows = sorted({*rows, *(i for i in first.tolist() if values[i] in seen)})
    seen.update(values)
    return rows


def take(lot: Lot, rows: np.ndarray) -> Lot:
    """The lot's rows at these places."""
    return Lot(
        lot.rows.take(pa.array(rows)),
        lot.numbers[rows],
        Extracted(lot.extracted.values[rows], lot.extracted.codes[rows], ()),
    )
