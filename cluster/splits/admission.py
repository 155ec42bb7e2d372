"""Admission of a split's rows: they are read, filtered, checked and encoded; bad ones set aside.

Training, calibration, scoring and evaluation all read rows through here, so that they cannot differ
in what they accept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.lake.input.reading import OpenSplit, Rows, open_split
from cluster.lake.input.splits import Split
from cluster.lake.storage.opening import open_store
from cluster.splits.column_rules import find_broken, may_change
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample, hash_keys, keep_smallest
from cluster.splits.stages import Stages
from models.columns import Categorical, Roles
from models.encoding.extractor import Extractor
from models.encoding.raw_batch import RawBatch
from models.layout import CHUNK

# Chunks in a batch. Measured in one thread on a table of 22 columns: a row took 53 ns to encode in
# batches of 32k rows (eight chunks), 80 ns in 16k, 121 ns in 8k; 64k was no faster.
CHUNKS = 8


class Quarantined(NamedTuple):
    """A row, or a whole split, that goes to the quarantine."""

    row: int | None  # row number in the file; None for a split that cannot be read
    column: str
    rule: str
    message: str = ""


class AdmittedRows(NamedTuple):
    """The good rows of one batch."""

    rows: pa.RecordBatch
    numbers: np.ndarray  # int64 [rows], row numbers in the file
    extracted: RawBatch  # raw values of the encoder; aligned with `rows`

    def select(self, places: np.ndarray) -> "AdmittedRows":
        """The rows at these places: int64 [rows]."""
        return AdmittedRows(
            self.rows.take(pa.array(places)),
            self.numbers[places],
            self.extracted.take(places),
        )


@dataclass(frozen=True)
class Intake:
    """How the rows of a watch are read. It holds no state of a split, so threads may share it."""

    input_uri: str
    extractor: Extractor
    roles: Roles
    filter: str | None = None
    carried: tuple[str, ...] = ()  # columns that admitted rows have beside the features
    ahead: tuple[str, ...] = ()  # columns that are read of the whole split before its features
    afterwards: tuple[str, ...] = ()  # columns that `Admission.read_columns` may be asked for
    hash_key: str | None = field(default=None, repr=False)  # where ids are secret
    types: pa.Schema | None = None  # in which columns are read; None: in those of each file

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of `AdmittedRows.rows`."""
        return tuple(dict.fromkeys((*self.extractor.required, *self.carried)))

    @property
    def batch_rows(self) -> int:
        """Rows of a batch."""
        return CHUNKS * self.extractor.layout.chunk_rows

    def reads_at_once(self, split: Split) -> bool:
        """Whether the split fits one batch."""
        return split.rows <= self.batch_rows

    def admit(self, split: Split) -> Iterator[AdmittedRows]:
        """The good rows of the split in order, one batch at a time."""
        with self.open(split, Stages()) as admission:
            yield from admission.admit()

    @contextmanager
    def open(self, split: Split, stages: Stages) -> Iterator["Admission"]:
        """Open the split's file, and read and check its ids."""
        store = open_store(self.input_uri)
        with open_split(store, split, self.filter, self.types) as source:
            yield Admission(self, source, stages)


class Admission:
    """The rows of one split on their way in.

    Ids come first, because a repeated id shows only in the whole column. Then come the features,
    in batches, and last the other columns, only of the rows that are wanted.

    A split of one batch is read whole, at once, and needs its file no more: reading all its columns
    costs less than coming back for some of them.
    """

    counts: Counts  # complete when all rows are admitted
    quarantined: list[Quarantined]
    keys: KeySample  # ids of the admitted rows

    def __init__(self, intake: Intake, source: OpenSplit, stages: Stages) -> None:
        self.intake, self.source, self.stages = intake, source, stages
        self.counts = Counts(splits=1, rows=source.split.rows)
        self.quarantined, self.keys = [], KeySample()
        ahead = (*intake.roles.id, *intake.ahead)
        self.whole = intake.reads_at_once(source.split)
        if self.whole:
            ahead = (*ahead, *intake.columns, *intake.afterwards)
        ahead = tuple(dict.fromkeys(ahead))
        with stages("open"):
            source.prefetch(tuple(dict.fromkeys((*ahead, *intake.columns))))
        with stages("read"):
            self.numbers, self.ahead = self._whole(ahead)
        with stages("filter"):
            self._hashes = self._hash_ids()
            self._unfit = self._find_unfit()
        self.used = np.ones(len(self.numbers), bool)

    def admit(self) -> Iterator[AdmittedRows]:
        """The good rows in order, one batch at a time; `counts` is complete at the end."""
        intake, stages = self.intake, self.stages
        batches = self._batches()
        good = 0
        while (read := _next(batches, stages)) is not None:
            batch, numbers = read
            with stages("encode"):
                extracted = intake.extractor.extract(batch)
            with stages("filter"):
                admitted = AdmittedRows(batch, numbers, extracted)
                if bad := self._find_bad(admitted):
                    admitted = self._without(admitted, bad)
                good += len(admitted.numbers)
            if len(admitted.numbers):
                yield admitted
        self._finish(good)

    def read_columns(self, columns: Sequence[str], numbers: np.ndarray) -> pa.Table:
        """These columns of the rows with these numbers (ascending); columns in memory are not read
        again."""
        here = set(self.ahead.schema.names) if self.ahead is not None else set()
        missing = [name for name in columns if name not in here]
        arrays: dict[str, pa.ChunkedArray] = {}
        if self.ahead is not None and len(missing) < len(columns):
            rows = pa.array(np.searchsorted(self.numbers, numbers))
            arrays |= {n: self.ahead.column(n).take(rows) for n in columns if n in here}
        if missing:
            taken = self.source.select_rows(missing, numbers, self.intake.batch_rows)
            arrays |= dict(zip(missing, taken.columns, strict=True))
        return pa.table([arrays[name] for name in columns], names=list(columns))

    def set_aside(self, table: pa.Table, numbers: np.ndarray) -> np.ndarray:
        """Quarantine the rows of `read_columns` that break a rule after they were scored: flags
        read more columns. Their numbers."""
        broken = self._find_broken(table, numbers)
        late = sorted(set(broken) & set(numbers.tolist()))
        for number in late:
            self.quarantined.append(Quarantined(number, *broken[number]))
        if len(self.numbers):
            self.used[np.searchsorted(self.numbers, late)] = False
        counts = self.counts
        self.counts = replace(
            counts, scored=counts.scored - len(late), quarantined=counts.quarantined + len(late)
        )
        return np.array(late, np.int64)

    def _batches(self) -> Iterator[Rows]:
        intake = self.intake
        if not self.whole:
            texts = [c.name for c in intake.extractor.columns if isinstance(c, Categorical)]
            yield from self.source.read_rows(intake.columns, intake.batch_rows, texts)
        elif self.ahead is not None:
            place = 0
            for batch in self.ahead.select(intake.columns).to_batches():
                yield Rows(batch, self.numbers[place : place + batch.num_rows])
                place += batch.num_rows

    def _whole(self, columns: tuple[str, ...]) -> tuple[np.ndarray, pa.Table | None]:
        """Row numbers that pass the filter, and these columns of those rows."""
        if not columns:
            return np.empty(0, np.int64), None
        parts = list(self.source.read_rows(columns, CHUNKS * CHUNK))
        if not parts:
            return np.empty(0, np.int64), None
        numbers = np.concatenate([part.numbers for part in parts])
        return numbers, pa.Table.from_batches([part.batch for part in parts]).combine_chunks()

    def _hash_ids(self) -> np.ndarray | None:
        if not self.intake.roles.id or self.ahead is None:
            return None
        columns = [self.ahead.column(name) for name in self.intake.roles.id]
        return hash_keys([column.combine_chunks() for column in columns], self.intake.hash_key)

    def _find_unfit(self) -> dict[int, tuple[str, str]]:
        """Row numbers that break a rule in the columns that were read ahead, with the first such
        rule. Two different ids share a 64-bit hash with probability below 1e-7 in a split of a
        million rows."""
        if self.ahead is None:
            return {}
        unfit = self._find_broken(self.ahead, self.numbers)
        if self._hashes is None:
            return unfit
        for name in self.intake.roles.id:
            column = self.ahead.column(name)
            if column.null_count:
                nulls = pc.is_null(column).to_numpy(zero_copy_only=False)
                for number in self.numbers[nulls]:
                    unfit.setdefault(int(number), (name, "null_key"))
        name = "+".join(self.intake.roles.id)
        for row in _find_repeated(self._hashes):
            unfit.setdefault(int(self.numbers[row]), (name, "duplicate_id"))
        return unfit

    def _find_broken(
        self, table: pa.Table | pa.RecordBatch, numbers: np.ndarray
    ) -> dict[int, tuple[str, str]]:
        """Row numbers that break a rule of a column which is no feature, with the first rule."""
        roles = self.intake.roles
        broken: dict[int, tuple[str, str]] = {}
        answers = filter(None, (roles.label, roles.kind))
        for name in dict.fromkeys((*roles.flagged, *answers)):
            if name not in table.schema.names:
                continue
            column = table.column(name)
            # The encoder has the rules of features.
            if name not in self.intake.extractor.required or may_change(column.type):
                whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
                for mask, rule in find_broken(name, whole, roles):
                    for number in numbers[mask].tolist():
                        broken.setdefault(number, (name, rule))
            for number in self.source.changed.get(name, ()):
                broken.setdefault(number, (name, "inexact"))
        return broken

    def _find_bad(self, admitted: AdmittedRows) -> dict[int, tuple[str, str]]:
        """Rows of the batch that cannot be used, each with the first rule that it breaks."""
        unfit, problems = self._unfit, admitted.extracted.problems
        if not self.whole:  # columns that were not read ahead
            unfit = {**self._find_broken(admitted.rows, admitted.numbers), **unfit}
        if not unfit and not problems:
            return {}
        bad: dict[int, tuple[str, str]] = {}
        repeated: dict[int, tuple[str, str]] = {}
        if unfit:
            for row, number in enumerate(admitted.numbers.tolist()):
                if number in unfit:
                    reason = unfit[number]
                    (repeated if reason[1] == "duplicate_id" else bad)[row] = reason
        for problem in problems:
            bad.setdefault(problem.row, (problem.column, problem.rule))
        return {**repeated, **bad}

    def _without(self, admitted: AdmittedRows, bad: dict[int, tuple[str, str]]) -> AdmittedRows:
        for row, (column, rule) in sorted(bad.items()):
            self.quarantined.append(Quarantined(int(admitted.numbers[row]), column, rule))
        places = np.fromiter(bad, np.int64, len(bad))
        if len(self.numbers):
            self.used[np.searchsorted(self.numbers, admitted.numbers[places])] = False
        everything = np.arange(len(admitted.numbers))
        return admitted.select(np.setdiff1d(everything, places, assume_unique=True))

    def _finish(self, good: int) -> None:
        with self.stages("filter"):
            if self._hashes is not None:
                # No id repeats within a split, so a sample needs only the smallest hashes.
                self.keys.update(keep_smallest(self._hashes[self.used]))
            bad = len(self.quarantined)
            filtered = self.counts.rows - good - bad
            self.counts = replace(self.counts, filtered=filtered, scored=good, quarantined=bad)


def _next(batches: Iterator[Rows], stages: Stages) -> Rows | None:
    with stages("read"):
        return next(batches, None)


def _find_repeated(keys: np.ndarray) -> list[int]:
    """Places of the keys that came before."""
    in_order = np.sort(keys)
    if not (in_order[1:] == in_order[:-1]).any():
        return []
    _, first = np.unique(keys, return_index=True)
    repeated = np.ones(len(keys), bool)
    repeated[first] = False
    places: list[int] = np.flatnonzero(repeated).tolist()
    return places
