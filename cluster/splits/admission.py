"""Rows of a split, fit to be used: read, filtered, checked, encoded; the rest set aside by name.

Training, calibration, scoring and evaluation all take their rows from here, so that they cannot
differ in what they accept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cluster.lake.input import reading
from cluster.lake.input.reading import OpenSplit
from cluster.lake.input.splits import Split
from cluster.lake.storage.opening import open_store
from cluster.splits.key_sample import KeySample, hashes, smallest
from cluster.splits.stages import Stages
from models.batch import CHUNK
from models.columns import Categorical, Roles
from models.encoding.encoder import Encoder
from models.encoding.raw_batch import RawBatch

# Chunks a batch. Measured in one thread on a table of 22 columns: batches of 32k rows, which is
# eight chunks, were encoded in 53 ns a row, of 16k in 80, of 8k in 121; 64k was no faster.
CHUNKS = 8


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
    extracted: RawBatch  # what the encoder made of them; aligned with `rows`


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
    carried: tuple[str, ...] = ()  # columns that each lot has beside the features
    ahead: tuple[str, ...] = ()  # columns that are wanted of the whole split, before its lots
    afterwards: tuple[str, ...] = ()  # columns that `Admission.take` may be asked for
    hash_key: str | None = field(default=None, repr=False)  # of ids that are secret

    @property
    def columns(self) -> tuple[str, ...]:
        """What each lot's rows hold."""
        return tuple(dict.fromkeys((*self.encoder.required, *self.carried)))

    @property
    def batch_rows(self) -> int:
        """Rows that are read and decoded at once."""
        return CHUNKS * self.encoder.layout.chunk_rows

    def reads_at_once(self, split: Split) -> bool:
        """Whether the split is one batch."""
        return split.rows <= self.batch_rows

    def lots(self, split: Split, books: Books) -> Iterator[Lot]:
        """Good rows of the split in order; `books` is filled along the way."""
        with self.open(split, books, Stages()) as admission:
            yield from admission.lots()

    @contextmanager
    def open(self, split: Split, books: Books, stages: Stages) -> Iterator["Admission"]:
        """The split's file, opened, its keys read and checked."""
        with reading.open_split(open_store(self.input_uri), split, self.filter) as source:
            yield Admission(self, source, books, stages)


class Admission:
    """One split on its way in. Ids first, as one column tells all repeated ids of a split; then
    the features, in lots; other columns only of the rows that turn out to be wanted.

    A split of one batch is read at once, whole, and needs its file no more: its columns cost less
    than coming back for some of them.
    """

    def __init__(self, intake: Intake, source: OpenSplit, books: Books, stages: Stages) -> None:
        self.intake, self.source, self.books, self.stages = intake, source, books, stages
        books.rows = source.split.rows
        ahead = (*intake.roles.id, *intake.ahead)
        self.whole = intake.reads_at_once(source.split)
        if self.whole:
            ahead = (*ahead, *intake.columns, *intake.afterwards)
        ahead = tuple(dict.fromkeys(ahead))
        with stages("open"):
            source.fetch(tuple(dict.fromkeys((*ahead, *intake.columns))))
        with stages("read"):
            self.numbers, self.ahead = self._whole(ahead)
        with stages("filter"):
            self.keys = self._hashes()
            self._unfit = self._unfit_keys()
        self.used = np.ones(len(self.numbers), bool)

    def lots(self) -> Iterator[Lot]:
        """Good rows in order, in lots of one batch each; the books are filled along the way."""
        intake, stages = self.intake, self.stages
        batches = self._batches()
        while (found := _next(batches, stages)) is not None:
            batch, numbers = found
            with stages("encode"):
                extracted = intake.encoder.extract(batch)
            with stages("filter"):
                bad = self._bad(numbers, extracted)
                lot = Lot(batch, numbers, extracted)
                if bad:
                    lot = self._without(lot, bad)
                self.books.good += len(lot.numbers)
            if len(lot.numbers):
                yield lot
        self._close_books()

    def take(self, columns: Sequence[str], numbers: np.ndarray) -> pa.Table:
        """These columns of the rows with these numbers, ascending; what is at hand is not read
        again."""
        here = set(self.ahead.schema.names) if self.ahead is not None else set()
        missing = [name for name in columns if name not in here]
        arrays: dict[str, pa.ChunkedArray] = {}
        if self.ahead is not None and len(missing) < len(columns):
            rows = pa.array(np.searchsorted(self.numbers, numbers))
            arrays |= {n: self.ahead.column(n).take(rows) for n in columns if n in here}
        if missing:
            taken = self.source.take(missing, numbers, self.intake.batch_rows)
            arrays |= dict(zip(missing, taken.columns, strict=True))
        return pa.table([arrays[name] for name in columns], names=list(columns))

    def _batches(self) -> Iterator[reading.Rows]:
        intake = self.intake
        if not self.whole:
            texts = [c.name for c in intake.encoder.columns if isinstance(c, Categorical)]
            yield from self.source.rows(intake.columns, intake.batch_rows, texts)
        elif self.ahead is not None:
            place = 0
            for batch in self.ahead.select(intake.columns).to_batches():
                yield reading.Rows(batch, self.numbers[place : place + batch.num_rows])
                place += batch.num_rows

    def _whole(self, columns: tuple[str, ...]) -> tuple[np.ndarray, pa.Table | None]:
        """Row numbers of the split that pass the filter, and these columns of them."""
        if not columns:
            return np.empty(0, np.int64), None
        parts = list(self.source.rows(columns, CHUNKS * CHUNK))
        if not parts:
            return np.empty(0, np.int64), None
        numbers = np.concatenate([part.numbers for part in parts])
        return numbers, pa.Table.from_batches([part.batch for part in parts]).combine_chunks()

    def _hashes(self) -> np.ndarray | None:
        if not self.intake.roles.id or self.ahead is None:
            return None
        columns = [self.ahead.column(name) for name in self.intake.roles.id]
        return hashes([column.combine_chunks() for column in columns], self.intake.hash_key)

    def _unfit_keys(self) -> dict[int, tuple[str, str]]:
        """Row numbers whose id is null, or came before in the split. Two different ids share a
        64-bit hash with probability below 1e-7 in a split of a million rows."""
        if self.keys is None or self.ahead is None:
            return {}
        unfit: dict[int, tuple[str, str]] = {}
        for name in self.intake.roles.id:
            column = self.ahead.column(name)
            if column.null_count:
                nulls = pc.is_null(column).to_numpy(zero_copy_only=False)
                unfit.update({int(n): (name, "null_key") for n in self.numbers[nulls]})
        name = "+".join(self.intake.roles.id)
        for row in _repeated(self.keys):
            unfit.setdefault(int(self.numbers[row]), (name, "duplicate_id"))
        return unfit

    def _bad(self, numbers: np.ndarray, extracted: RawBatch) -> dict[int, tuple[str, str]]:
        """Rows of the batch that cannot be used, each with the first rule that it breaks."""
        if not self._unfit and not extracted.problems:
            return {}
        bad: dict[int, tuple[str, str]] = {}
        repeated: dict[int, tuple[str, str]] = {}
        if self._unfit:
            for row, number in enumerate(numbers.tolist()):
                if number in self._unfit:
                    found = self._unfit[number]
                    (repeated if found[1] == "duplicate_id" else bad)[row] = found
        for problem in extracted.problems:
            bad.setdefault(problem.row, (problem.column, problem.rule))
        return {**repeated, **bad}

    def _without(self, lot: Lot, bad: dict[int, tuple[str, str]]) -> Lot:
        for row, (column, rule) in sorted(bad.items()):
            self.books.set_aside.append(SetAside(int(lot.numbers[row]), column, rule))
        places = np.fromiter(bad, np.int64, len(bad))
        if len(self.numbers):
            self.used[np.searchsorted(self.numbers, lot.numbers[places])] = False
        keep = np.setdiff1d(np.arange(len(lot.numbers)), places, assume_unique=True)
        return take(lot, keep)

    def _close_books(self) -> None:
        books = self.books
        with self.stages("filter"):
            if self.keys is not None:
                # Each id is used once in a split, so the smallest hashes are all that count.
                books.keys.update(smallest(self.keys[self.used]))
            books.filtered = books.rows - books.good - len(books.set_aside)


def _next(batches: Iterator[reading.Rows], stages: Stages) -> reading.Rows | None:
    with stages("read"):
        return next(batches, None)


def _repeated(keys: np.ndarray) -> list[int]:
    """Places of the keys that came before."""
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        return []
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(keys), bool)
    repeated[first] = False
    places: list[int] = np.flatnonzero(repeated).tolist()
    return places


def take(lot: Lot, rows: np.ndarray) -> Lot:
    """The lot's rows at these places."""
    return Lot(
        lot.rows.take(pa.array(rows)),
        lot.numbers[rows],
        lot.extracted.take(torch.from_numpy(rows)),
    )
