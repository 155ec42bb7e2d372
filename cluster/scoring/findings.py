"""Findings of a worker while it scores a task; its receipt and its shards are made from them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.lake.input.splits import Split
from cluster.scoring.receipt import HourCounts, QuarantineRule
from cluster.splits.admission import Admission, AdmittedRows, Quarantined
from cluster.splits.counts import Counts
from cluster.splits.key_sample import KeySample
from models.columns import Roles
from models.decoding.times import decode_times
from models.encoding.raw_batch import RawBatch
from models.scores.histogram import ScoreHistogram

_PER_HOUR = 3_600_000_000  # microseconds
_MOST_HOURS = 100_000  # of a table that counts each hour
_EXAMPLES = 5  # row numbers that a rule of the quarantine names


class SplitFindings:
    """Scores of one split, and its flagged rows."""

    def __init__(self) -> None:
        self._numbers: list[np.ndarray] = []
        self._scores: list[np.ndarray] = []
        self.extracted: list[RawBatch] = []  # of the flagged rows
        self.all_numbers: list[np.ndarray] = []  # row numbers of `all_scores`
        self.all_scores: list[np.ndarray] = []
        self.score_tables: list[pa.Table] = []  # of the table of all scores, where it is asked for
        self.labelled: list[pa.Table] = []  # scores beside labels, where there are labels
        self.rows = pa.table({})  # columns of the flagged rows that a flag carries

    def add(self, admitted: AdmittedRows, scores: np.ndarray, flagged: np.ndarray) -> None:
        """Add scores, float32 [rows], and the places of those above the threshold."""
        self.all_numbers.append(admitted.numbers)
        self.all_scores.append(scores)
        if len(flagged):
            self._numbers.append(admitted.numbers[flagged])
            self._scores.append(scores[flagged])
            self.extracted.append(admitted.extracted.take(flagged))

    @property
    def numbers(self) -> np.ndarray:
        """Row numbers in the file of the flagged rows: int64, ascending."""
        return np.concatenate(self._numbers) if self._numbers else np.empty(0, np.int64)

    @property
    def scores(self) -> np.ndarray:
        """Scores of the flagged rows, float32."""
        return np.concatenate(self._scores)

    def drop(self, numbers: np.ndarray) -> None:
        """Take these rows out again."""
        kept = [~np.isin(held, numbers) for held in self.all_numbers]
        self.all_scores = [each[k] for each, k in zip(self.all_scores, kept, strict=True)]
        self.all_numbers = [each[k] for each, k in zip(self.all_numbers, kept, strict=True)]
        for tables in (self.score_tables, self.labelled):
            tables[:] = [each.filter(k) for each, k in zip(tables, kept, strict=False)]
        kept = [~np.isin(held, numbers) for held in self._numbers]
        self._numbers = [each[k] for each, k in zip(self._numbers, kept, strict=True)]
        self._scores = [each[k] for each, k in zip(self._scores, kept, strict=True)]
        self.extracted = [
            each.take(np.flatnonzero(k)) for each, k in zip(self.extracted, kept, strict=True)
        ]


class ReadSplit(NamedTuple):
    """A split that was read; a small one waits to be scored together with its neighbours."""

    split: Split
    admission: Admission
    admitted: list[AdmittedRows]  # empty for a large split, which is scored batch by batch
    findings: SplitFindings


class TaskFindings:
    """Findings of the splits of a task that are finished."""

    def __init__(self) -> None:
        self.counts = Counts(tasks=1)
        self.scores = ScoreHistogram()
        self.keys = KeySample()
        self.hours: dict[int, HourCounts] = {}
        self.rules: list[QuarantineRule] = []
        self.quarantined: list[tuple[str, Quarantined]] = []  # each with its file
        self.splits: list[tuple[str, SplitFindings]] = []  # each with its file
        self.waiting: list[ReadSplit] = []  # small splits that were read, and not yet scored

    def add(self, read: ReadSplit, roles: Roles) -> None:
        """Add a split that was scored to its end."""
        file, admission, findings = read.split.key, read.admission, read.findings
        read_bytes = admission.source.read_bytes
        self.counts += replace(
            admission.counts,
            flagged=len(findings.numbers),
            non_finite=self._add_scores(findings.all_scores),
            checked_by_pages=read_bytes.by_pages,
            checked_by_store=read_bytes.by_store,
            unchecked=read_bytes.by_nothing,
        )
        self.keys.merge(admission.keys)
        self.quarantined += [(file, row) for row in admission.quarantined]
        self.rules += _group_by_rule(file, admission.quarantined)
        for hour, counts in _count_by_hour(admission, findings, roles):
            known = self.hours.get(hour, HourCounts(0, 0))
            self.hours[hour] = HourCounts(known.rows + counts.rows, known.flagged + counts.flagged)
        self.splits.append((file, findings))

    def refuse(self, split: Split, rule: str, message: str, settled: bool = True) -> None:
        """Quarantine all rows of a split that could not be read. Not `settled`: it may pass."""
        self.counts += Counts(splits=1, rows=split.rows, quarantined=split.rows)
        self.quarantined.append((split.key, Quarantined(None, "", rule, message)))
        self.rules.append(QuarantineRule(split.key, None, rule, split.rows, settled=settled))

    def _add_scores(self, parts: list[np.ndarray]) -> int:
        """Returns the number of scores that are NaN or infinite."""
        if not parts:
            return 0
        scores = np.concatenate(parts)
        finite = np.isfinite(scores)
        self.scores.update(scores[finite])
        return int((~finite).sum())


def _count_by_hour(
    admission: Admission, findings: SplitFindings, roles: Roles
) -> Iterator[tuple[int, HourCounts]]:
    """Admitted and flagged rows by the hour of their own time, for hours that have a row."""
    if not roles.time or admission.ahead is None:
        return
    column = admission.ahead.column(roles.time).combine_chunks()
    times = decode_times(column, roles.time_unit).instants
    known = np.asarray(times.is_valid())
    flags = np.zeros(len(known), bool)
    flags[np.searchsorted(admission.numbers, findings.numbers)] = True
    flagged, used = flags[known], admission.used[known]
    instants = times.drop_null().cast(pa.int64()).to_numpy() // _PER_HOUR
    first = int(instants.min()) if len(instants) else 0
    if len(instants) and int(instants.max()) - first < _MOST_HOURS:
        rows = np.bincount((instants - first)[used])
        flags = np.bincount((instants - first)[flagged], minlength=len(rows))
        places = np.flatnonzero(rows)
        hours, rows, flags = places + first, rows[places], flags[places]
    else:  # times all over the place: no table of all hours between
        hours, place = np.unique(instants, return_inverse=True)
        rows = np.bincount(place[used], minlength=len(hours))
        flags = np.bincount(place[flagged], minlength=len(hours))
    for hour, n, m in zip(hours.tolist(), rows.tolist(), flags.tolist(), strict=True):
        if n:
            yield hour, HourCounts(n, m)


def _group_by_rule(file: str, rows: list[Quarantined]) -> list[QuarantineRule]:
    """The rows by column and rule, each with a few row numbers as examples."""
    grouped: dict[tuple[str, str], list[int]] = {}
    for one in rows:
        if one.row is not None:
            grouped.setdefault((one.column, one.rule), []).append(one.row)
    return [
        QuarantineRule(file, column, rule, len(numbers), tuple(numbers[:_EXAMPLES]))
        for (column, rule), numbers in sorted(grouped.items())
    ]
