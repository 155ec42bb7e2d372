"""The plan of a training: its days, and the splits that are learned and held back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import pyarrow as pa

from cluster.lake.days import DayRange, is_ahead
from cluster.lake.input.file_types import find_common_schema
from cluster.lake.input.partitions import Source, list_days
from cluster.lake.input.snapshot import Snapshot, list_days_with_rows
from cluster.lake.input.splits import SPLIT_BYTES, SPLIT_ROWS, Split, cut_splits
from jobs import input_rows
from jobs.spec.spec import Spec
from models.refusal import Refusal

# From this many training days on, whole days are held back; with fewer, splits of each day are
# (docs/decisions/held-back-rows.md).
_DAYS_TO_HOLD_BACK = 3
# Splits held back of a day: enough to represent all of it.
_HELD_BACK_SPLITS = 16


@dataclass(frozen=True)
class TrainingPlan:
    """The rows that a training reads. Needs no Ray, so it can be printed and tested."""

    uri: str
    snapshots: tuple[Snapshot, ...]
    learned: tuple[tuple[str, Split], ...]  # (day, split)
    held_back: tuple[tuple[str, Split], ...]
    held_back_days: float  # the held-back rows, as a number of days

    @cached_property
    def schema(self) -> pa.Schema:
        """The types in which the rows of all days are read."""
        return find_common_schema([file for taken in self.snapshots for file in taken.files])

    @property
    def days(self) -> tuple[str, ...]:
        return tuple(s.day for s in self.snapshots)

    @property
    def holds_back_days(self) -> bool:
        """Whether whole days are held back, rather than splits of each day."""
        return not {day for day, _ in self.learned} & {day for day, _ in self.held_back}

    @property
    def rows(self) -> int:
        return sum(split.rows for _, split in self.learned)


def plan_training(spec: Spec, days: DayRange | None = None) -> TrainingPlan:
    """Take snapshots of the training days and hold back some rows for validation and calibration.

    Raises Refusal if a file cannot be read, or if there are too few rows.
    """
    uri = spec.training_uri
    chosen = choose_days(spec, days)
    snapshots = input_rows.take_snapshots(spec, uri, chosen)
    uri = snapshots[0].uri
    for taken in snapshots:
        for file in taken.rejected:
            if file in taken.misnamed:
                continue  # stops no verb
            raise Refusal(
                f"{file.key} of training day {taken.day} cannot be used: {file.message}; "
                "restore it, remove it, or choose other training days"
            )
    if sum(s.rows for s in snapshots) == 0:
        raise Refusal(f"the training days {format_days(chosen)} of {uri} have no rows")
    if sum(taken.rows > 0 for taken in snapshots) >= _DAYS_TO_HOLD_BACK:
        return _hold_back_days(uri, snapshots, spec.training.validation)
    return _hold_back_splits(uri, snapshots, spec.training.validation)


def choose_days(spec: Spec, days: DayRange | None) -> tuple[str, ...]:
    """The days to train on: `days`, or those of the spec, or all before the newest with rows.

    Raises Refusal if the input has none of them.
    """
    uri = spec.training_uri
    there = list_days(spec.source(uri))
    if not there:
        raise Refusal(f"no data in {uri}: expected Parquet files, found none")
    wanted = days or spec.training.day_range
    if wanted is None:
        today = datetime.now(UTC).date()
        there = tuple(day for day in there if not is_ahead(day, today)) or there
        return there if spec.trains_apart else _leave_out_newest(spec.source(uri), there)
    return wanted.require(there, uri)


def _leave_out_newest(source: Source, days: tuple[str, ...]) -> tuple[str, ...]:
    """The days before the newest with rows; that day itself where no earlier one has rows."""
    if len(days) == 1:
        return days
    with_rows = list_days_with_rows(source, days)
    newest = next(with_rows, None)
    if newest is None:
        return days
    return (newest,) if next(with_rows, None) is None else days[: days.index(newest)]


def _hold_back_days(uri: str, snapshots: tuple[Snapshot, ...], share: float) -> TrainingPlan:
    """Hold back the newest days with rows, since a detector judges the days that follow."""
    filled = tuple(taken for taken in snapshots if taken.rows)
    count = max(1, round(share * len(filled)))
    learned, held = filled[:-count], filled[-count:]
    return TrainingPlan(uri, snapshots, _splits(learned), _splits(held), float(count))


def _hold_back_splits(uri: str, snapshots: tuple[Snapshot, ...], share: float) -> TrainingPlan:
    """Hold back one split in every few, so that the held-back rows are spread over each day."""
    every = max(2, round(1 / share))
    learned: list[tuple[str, Split]] = []
    held: list[tuple[str, Split]] = []
    for taken in snapshots:
        rows = max(1, min(SPLIT_ROWS, taken.rows // (_HELD_BACK_SPLITS * every)))
        for index, split in enumerate(cut_splits(taken, rows, SPLIT_BYTES)):
            (held if index % every == every - 1 else learned).append((taken.day, split))
    if not held or not learned:
        raise Refusal(
            f"{sum(s.rows for s in snapshots)} rows are too few to train on some and hold back "
            f"others: expected {2 * every} at least"
        )
    rows_held = sum(split.rows for _, split in held)
    share_held = rows_held / max(1, rows_held + sum(split.rows for _, split in learned))
    days = share_held * sum(taken.rows > 0 for taken in snapshots)
    return TrainingPlan(uri, snapshots, tuple(learned), tuple(held), days)


def _splits(snapshots: Sequence[Snapshot]) -> tuple[tuple[str, Split], ...]:
    return tuple(
        (taken.day, split)
        for taken in snapshots
        for split in cut_splits(taken, SPLIT_ROWS, SPLIT_BYTES)
    )


def format_days(days: Sequence[str]) -> str:
    """`2026-01-01, 2026-01-02` or `2026-01-01 .. 2026-03-31 (90 days)`."""
    if len(days) <= 3:
        return ", ".join(days) or "none"
    return f"{days[0]} .. {days[-1]} ({len(days)} days)"
