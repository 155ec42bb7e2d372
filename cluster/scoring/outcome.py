"""What became of the rows of a task: its flags, and the counts that its receipt reports."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from cluster.lake.input.splits import Split
from cluster.splits.admission import Admission, AdmittedRows, Quarantined
from cluster.splits.key_sample import KeySample
from models.columns import Roles
from models.encoding.raw_batch import RawBatch
from models.scores.histogram import ScoreHistogram

_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_MOST_HOURS = 100_000  # of a table that counts each hour


class Found:
    """The results of one split."""

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self.extracted: list[RawBatch] = []  # of the flagged rows
        self.all_scores: list[np.ndarray] = []
        self.every: list[pa.Table] = []
        self.labelled: list[pa.Table] = []
        self.rows = pa.table({})  # columns of the flagged rows that a flag carries

    def add(self, admitted: AdmittedRows, scores: np.ndarray, flagged: np.ndarray) -> None:
        self.all_scores.append(scores)
        if len(flagged):
            self._numbers.append(admitted.numbers[flagged])
            self._scores.append(scores[flagged])
            self.extracted.append(admitted.extracted.take(torch.from_numpy(flagged)))

    @property
    def numbers(self) -> np.ndarray:
        """Row numbers in the file of the flagged rows: int64, ascending."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, np.int64)

    @property
    def scores(self) -> np.ndarray:
        """Their scores, float32."""
        return np.concatenate(self._scores)


class ReadSplit(NamedTuple):
    """A split that was read; a small one waits to be scored together with its neighbours."""

    split: Split
    admission: Admission
    admitted: list[AdmittedRows]  # empty for a large split, which is scored batch by batch
    found: Found


class Outcome:
    """What became of the rows of a task, split by split."""

    def __init__(self) -> None:
        self.rows = self.filtered = self.scored = self.quarantined = 0
        self.aside: list[tuple[str, Quarantined]] = []
        self.rules: list[dict[str, Any]] = []
        self.unreadable: list[dict[str, Any]] = []
        self.keys = KeySample()
        self.tally = Tally()
        self.found: list[tuple[str, Found]] = []
        self.waiting: list[ReadSplit] = []  # small splits that were read, and not yet judged

    def add(self, read: ReadSplit, roles: Roles) -> None:
        """A split that was read, and judged, to its end."""
        key, counts = read.split.key, read.admission.counts
        self.rows += counts.rows
        self.filtered += counts.filtered
        self.scored += counts.scored
        self.quarantined += counts.quarantined
        self.aside += [(key, item) for item in read.admission.quarantined]
        self.rules += _rules(key, read.admission.quarantined)
        self.keys.merge(read.admission.keys)
        self.tally.add(read.found, read.admission, roles)
        self.found.append((key, read.found))

    def refuse(self, split: Split, rule: str, message: str) -> None:
        """A split that could not be read: all its rows are set aside."""
        self.rows += split.rows
        self.quarantined += split.rows
        self.aside.append((split.key, Quarantined(None, "", rule, message)))
        self.unreadable.append(
            {"file": split.key, "rows": split.rows, "rule": rule, "message": message}
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "filtered": self.filtered,
            "scored": self.scored,
            "quarantined": self.quarantined,
            "unreadable": self.unreadable,
            "rules": self.rules,
            "keys": self.keys.to_document(),
            **self.tally.to_document(),
        }


class Tally:
    """Counts of a task that the run card and the gates need."""

    def __init__(self) -> None:
        self.non_finite = 0
        self.hours: dict[str, list[int]] = {}
        self.histogram = ScoreHistogram()

    def add(self, found: Found, admission: Admission, roles: Roles) -> None:
        """Count the scores of a split, and its rows and flags by the hour."""
        if found.all_scores:
            scores = np.concatenate(found.all_scores)
            finite = np.isfinite(scores)
            self.non_finite += int((~finite).sum())
            self.histogram.update(scores[finite])
        if roles.time and admission.ahead is not None:
            time_column = admission.ahead.column(roles.time)
            if pa.types.is_timestamp(time_column.type):
                flagged = np.searchsorted(admission.numbers, found.numbers)
                self._by_hour(time_column, flagged, admission.used)

    def _by_hour(self, time_column: pa.ChunkedArray, flagged: np.ndarray, used: np.ndarray) -> None:
        per_hour = 3600 * _PER_SECOND[time_column.type.unit]
        instants = time_column.cast(pa.int64()).fill_null(0).to_numpy() // per_hour
        first = int(instants.min()) if len(instants) else 0
        if len(instants) and int(instants.max()) - first < _MOST_HOURS:
            rows = np.bincount((instants - first)[used])
            flags = np.bincount((instants - first)[flagged], minlength=len(rows))
            hours = np.flatnonzero(rows)
            values, counts, marked = hours + first, rows[hours], flags[hours]
        else:  # times all over the place: no table of all hours between
            values, place = np.unique(instants, return_inverse=True)
            counts = np.bincount(place[used], minlength=len(values))
            marked = np.bincount(place[flagged], minlength=len(values))
        for value, n, m in zip(values.tolist(), counts.tolist(), marked.tolist(), strict=True):
            if n:
                entry = self.hours.setdefault(str(value), [0, 0])
                entry[0] += n
                entry[1] += m

    def to_document(self) -> dict[str, Any]:
        return {
            "non_finite": self.non_finite,
            "sketch": self.histogram.to_document(),
            "hours": self.hours,
        }


def _rules(file: str, aside: list[Quarantined]) -> list[dict[str, Any]]:
    """Rows set aside by column and rule, each with a few row numbers as examples."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for item in aside:
        if item.row is not None:
            grouped.setdefault((item.column, item.rule), []).append(item.row)
    return [
        {"file": file, "column": column, "rule": rule, "rows": len(rows), "examples": rows[:5]}
        for (column, rule), rows in sorted(grouped.items())
    ]
